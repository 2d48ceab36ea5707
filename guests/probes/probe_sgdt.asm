; probe_sgdt - SGDT stores where the global descriptor table lies, for whoever asks.
;
; A guest kernel that runs on a shadow table would find the hypervisor's address and limit. LGDT is
; privileged; the instruction that reads back what it loaded is not.

%include "probe.inc"

start:
    call install_rings
    sgdt [table_register]
    judge [table_register + 2], gdt
    yes "SGDT in ring 0: the kernel's own table."
    no "SGDT in ring 0: a table that is not the kernel's."

    attempt .ring_3, "SGDT"
    jc .end
    judge [table_register + 2], gdt
    yes "It leaked the address of the kernel's table."
    no "It leaked the address of a table the kernel does not know."
    movzx ebx, word [table_register]
    judge ebx, gdt_end - gdt - 1
    yes "It leaked the table's limit."
    no "The limit is not the kernel's."
.end:
    exit 0

ring_3_code
.ring_3:
    sgdt [table_register]
    leave_ring_3
