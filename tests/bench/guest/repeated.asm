; repeated.asm - instructions of a kernel, COUNT times: what tests/bench/translated.py defines.
;
; FIRST and SECOND (which may be empty) are done TIMES times in an iteration, with ARGUMENT in EAX, a
; port that does nothing in DX and a buffer at EBX. The stack is put right after them, in an empty
; loop too, so that a push or a pop may stand alone; POPPED is what is popped. PAGING is 1 or 0.
; `nothing` and `nothing_far` are there to be called, CALL_VECTOR to be raised; `returned` is an IRET
; to what follows, `jumped_far` a far jump.

%include "guest.inc"
%include "interrupts.inc"
%include "paging.inc"

CALL_VECTOR equ 0x80

%macro returned 0
    pushf
    push cs
    push %%next
    iret
%%next:
%endmacro

%macro jumped_far 0
    jmp KERNEL_CODE:%%next
%%next:
%endmacro

start:
    call install_gdt
    call install_interrupts
    mov edx, CALL_VECTOR
    mov eax, handler
    mov ecx, GATE_TRAP
    call set_gate
%if PAGING
    call start_paging
%endif
%rep TIMES
    push POPPED
%endrep
    mov edi, esp
    mov ebp, COUNT
    mov ebx, buffer
    mov edx, 0x80
    mov eax, ARGUMENT
.again:
%rep TIMES
    FIRST
    SECOND
%endrep
    mov esp, edi
    dec ebp
    jnz .again
    exit 0

nothing:
    ret
nothing_far:
    retf
handler:
    iret

section .bss
alignb 4096
buffer: resb 4096
