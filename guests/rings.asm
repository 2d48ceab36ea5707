; rings - a program in ring 3 under a kernel of thirty lines.
;
; Ring 3 may compute as it likes but touch neither ports nor the processor's configuration. What it
; needs it asks for by INT 0x80; what it takes without asking ends in an exception, and the kernel
; decides what that means. Here: it says what happened and steps over the instruction.

%include "guest.inc"
%include "ring3.inc"

; System calls: number in EAX, argument in EBX, result in EAX.
CALL_LEAVE  equ 0
CALL_WRITE  equ 1                       ; EBX = text
CALL_SQUARE equ 2                       ; EBX = number

start:
    call install_rings
    on_vector SYSTEM_CALL, on_system_call
    on_vector 6, on_fault
    on_vector 13, on_fault
    mov eax, program
    call call_ring_3
    print_line "back in ring 0"
    exit 0

; EBX = frame.
on_system_call:
    cmp dword [ebx + FRAME_EAX], CALL_WRITE
    je .write
    cmp dword [ebx + FRAME_EAX], CALL_SQUARE
    je .square
    jmp ring_3_left
.write:
    mov esi, [ebx + FRAME_EBX]
    call write_text
    ret
.square:
    mov eax, [ebx + FRAME_EBX]
    imul eax, eax
    mov [ebx + FRAME_EAX], eax
    ret

; The program keeps in EBP where to go on after a fault.
on_fault:
    print "  kernel: caught vector "
    print_decimal [ebx + FRAME_VECTOR]
    print ", from ring "
    mov eax, [ebx + FRAME_CS]
    and eax, 3
    print_decimal eax
    newline
    mov eax, [ebx + FRAME_EBP]
    mov [ebx + FRAME_EIP], eax
    ret

%macro tell 1
    mov ebx, %1
    mov eax, CALL_WRITE
    int SYSTEM_CALL
%endmacro

; From here on: ring 3.
ring_3_code
program:
    tell .hello
    mov ebx, 12
    mov eax, CALL_SQUARE
    int SYSTEM_CALL
    cmp eax, 144
    jne .no_hlt
    tell .square

    tell .try_cli
    mov ebp, .no_cli
    cli
.no_cli:
    tell .try_out
    mov ebp, .no_out
    out DEBUG_EXIT, al
.no_out:
    tell .try_hlt
    mov ebp, .no_hlt
    hlt
.no_hlt:
    tell .try_cr0
    mov ebp, .no_cr0
    mov eax, cr0
.no_cr0:
    tell .try_ds
    mov ebp, .no_ds
    mov ecx, KERNEL_DATA
    mov ds, cx
.no_ds:
    tell .try_int
    mov ebp, .no_int
    int IRQ_BASE
.no_int:
    tell .try_ud2
    mov ebp, .no_ud2
    ud2
.no_ud2:
    mov eax, CALL_LEAVE
    int SYSTEM_CALL

.hello:   db "hello from ring 3", 10, 0
.square:  db "the kernel squared 12 for me", 10, 0
.try_cli: db "I try CLI", 10, 0
.try_out: db "I try OUT", 10, 0
.try_hlt: db "I try HLT", 10, 0
.try_cr0: db "I try to read CR0", 10, 0
.try_ds:  db "I try to load the kernel's data segment", 10, 0
.try_int: db "I try INT through a gate of the kernel's own", 10, 0
.try_ud2: db "I try an instruction that does not exist", 10, 0
