; kprobe_lsl - LSL in a kernel: how long are its own segments?
;
; It made them 4 GiB long. A hypervisor that hides behind segment limits has cut those that the
; processor knows of.

%include "kprobe.inc"

start:
    call install_kernel_probe
    mov eax, KERNEL_DATA
    lsl ebx, eax
    judge ebx, 0xFFFFFFFF
    yes "LSL in the kernel: its data segment is 4 GiB long."
    no "LSL in the kernel: its data segment was cut."
    mov eax, KERNEL_CODE
    lsl ebx, eax
    judge ebx, 0xFFFFFFFF
    yes "LSL in the kernel: its code segment is 4 GiB long."
    no "LSL in the kernel: its code segment was cut."
    mov eax, TSS_SELECTOR
    lsl ebx, eax
    judge ebx, TSS_SIZE - 1
    yes "LSL in the kernel: its TSS is as long as it made it."
    no "LSL in the kernel: its TSS is not as long as it made it."
    exit 0
