; probe_mov_to_segment - MOV to a segment register loads a descriptor, and nobody is told.
;
; As POP does: allowed by the real ring, silent if allowed. The null selector is always allowed, and
; shows only when it is used.

%include "probe.inc"

start:
    call install_rings
    mov eax, KERNEL_DATA
    mov es, ax
    mov ebx, es
    movzx ebx, bx
    judge ebx, KERNEL_DATA
    yes "MOV to ES in ring 0: the kernel's data segment is loaded."
    no "MOV to ES in ring 0: something else is loaded."

    attempt .own, "MOV to ES of its own data segment"
    jc .kernel
    judge [left_frame + FRAME_EBX], USER_DATA & ~3
    yes "Loaded without notice, with the RPL it chose: 0."
    no "Something else was loaded."
.kernel:
    attempt .ring_0, "MOV to ES of the kernel's data segment"
    attempt .null, "MOV to ES of the null selector"
    attempt .use, "Use of the null selector"
    exit 0

ring_3_code
.own:
    mov eax, USER_DATA & ~3
    mov es, ax
    mov ebx, es
    movzx ebx, bx
    leave_ring_3

.ring_0:
    mov eax, KERNEL_DATA
    mov es, ax
    leave_ring_3

.null:
    mov eax, 0
    mov es, ax
    leave_ring_3

.use:
    mov eax, 0
    mov es, ax
    mov eax, [es:table_register]
    leave_ring_3
