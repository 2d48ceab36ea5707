; kprobe_sidt - SIDT in a kernel: does it find the table that it loaded?
;
; All gates belong to the hypervisor, in a table of its own. LIDT told it where the kernel's lies;
; SIDT shows where its own does.

%include "kprobe.inc"

start:
    call install_kernel_probe
    sidt [table_register]
    judge [table_register + 2], idt
    yes "SIDT in the kernel: the base that LIDT loaded."
    no "SIDT in the kernel: another base than LIDT loaded."
    movzx ebx, word [table_register]
    judge ebx, 256 * 8 - 1
    yes "SIDT in the kernel: the limit that LIDT loaded."
    no "SIDT in the kernel: another limit than LIDT loaded."
    exit 0
