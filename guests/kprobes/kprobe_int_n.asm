; kprobe_int_n - INT n in a kernel: what does its handler find in the frame?
;
; The selector and the flags that the processor pushes are those of the ring it really is in. But
; every gate of the real table is the hypervisor's, which writes the guest's frame itself.

%include "kprobe.inc"

start:
    call install_kernel_probe
    on_vector 3, breakpoint
    cli
    int 3
    judge [frame + FRAME_CS], KERNEL_CODE
    yes "INT 3 in the kernel: the frame's CS is the kernel's, ring 0."
    no "INT 3 in the kernel: the frame's CS is not the kernel's."
    judge_bit [frame + FRAME_EFLAGS], EFLAGS_IF
    yes "INT 3 in the kernel: the frame's IF is 1 after CLI."
    no "INT 3 in the kernel: the frame's IF is 0 after CLI."
    try .absent, "INT 0xF0, for which the kernel made no gate,"
    exit 0

.absent:
    int 0xF0
    ret

breakpoint:
    mov esi, ebx
    mov edi, frame
    mov ecx, FRAME_SIZE / 4
    rep movsd
    ret

section .bss
alignb 4
frame: resb FRAME_SIZE
