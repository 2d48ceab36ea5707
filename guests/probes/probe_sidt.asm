; probe_sidt - SIDT stores where the interrupt descriptor table lies, for whoever asks.
;
; The instruction of the "red pill": a hypervisor must keep the real IDT to itself, so the address
; that ring 3 reads tells whether there is one.

%include "probe.inc"

start:
    call install_rings
    sidt [table_register]
    judge [table_register + 2], idt
    yes "SIDT in ring 0: the kernel's own table."
    no "SIDT in ring 0: a table that is not the kernel's."

    attempt .ring_3, "SIDT"
    jc .end
    judge [table_register + 2], idt
    yes "It leaked the address of the kernel's table."
    no "It leaked the address of a table the kernel does not know."
    movzx ebx, word [table_register]
    judge ebx, 256 * 8 - 1
    yes "It leaked the table's limit."
    no "The limit is not the kernel's."
.end:
    exit 0

ring_3_code
.ring_3:
    sidt [table_register]
    leave_ring_3
