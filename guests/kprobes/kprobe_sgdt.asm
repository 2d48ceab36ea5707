; kprobe_sgdt - SGDT in a kernel: does it find the table that it loaded?
;
; A hypervisor loads a shadow table of its own, elsewhere and of another length; LGDT told it so.
; SGDT asks the processor, not the hypervisor.

%include "kprobe.inc"

start:
    call install_kernel_probe
    sgdt [table_register]
    judge [table_register + 2], gdt
    yes "SGDT in the kernel: the base that LGDT loaded."
    no "SGDT in the kernel: another base than LGDT loaded."
    movzx ebx, word [table_register]
    judge ebx, gdt_end - gdt - 1
    yes "SGDT in the kernel: the limit that LGDT loaded."
    no "SGDT in the kernel: another limit than LGDT loaded."
    exit 0
