; probe_pop_segment - POP into a segment register loads a descriptor, and nobody is told.
;
; The processor reads the GDT and compares privilege levels: DPL against the real ring. What is
; allowed happens without a trap, so a hypervisor does not learn that the guest loaded a descriptor
; it may since have changed. What is not allowed is at least a fault.

%include "probe.inc"

start:
    call install_rings
    push KERNEL_DATA
    pop es
    mov ebx, es
    movzx ebx, bx
    judge ebx, KERNEL_DATA
    yes "POP ES in ring 0: the kernel's data segment is loaded."
    no "POP ES in ring 0: something else is loaded."

    attempt .own, "POP ES of its own data segment"
    jc .kernel
    judge [left_frame + FRAME_EBX], USER_DATA & ~3
    yes "Loaded without notice, with the RPL it chose: 0."
    no "Something else was loaded."
.kernel:
    attempt .ring_0, "POP ES of the kernel's data segment"
    exit 0

ring_3_code
.own:
    push USER_DATA & ~3
    pop es
    mov ebx, es
    movzx ebx, bx
    leave_ring_3

.ring_0:
    push KERNEL_DATA
    pop es
    leave_ring_3
