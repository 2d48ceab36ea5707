; strings - the string instructions.
;
; Five instructions move along memory by themselves: MOVS copies, STOS fills, LODS loads, SCAS
; compares with AL, CMPS compares two places. ESI reads and EDI writes; the direction flag says
; which way they go; a REP prefix repeats until ECX is zero, or until the comparison says stop.

%include "guest.inc"

section .data
text: db "the quick brown fox jumps over the lazy dog", 0
twin: db "the quick brown fox leaps over the lazy dog", 0

section .bss
buffer: resb 64

section .text
start:
    call measure
    call find
    call compare
    call copy_and_fill
    call overlap
    call capitals
    exit 0

; REPNE SCASB: look for the final zero. ECX counts down from -1, the zero included.
measure:
    mov edi, text
    mov ecx, -1
    mov al, 0
    repne scasb
    not ecx
    dec ecx
    print "length: "
    print_decimal ecx
    newline
    ret

; The same, looking for a letter: it stops one beyond.
find:
    mov edi, text
    mov ecx, 44
    mov al, 'q'
    repne scasb
    lea eax, [edi - 1]
    sub eax, text
    print "the first q is at "
    print_decimal eax
    newline
    ret

; REPE CMPSB: as long as both are equal.
compare:
    mov esi, text
    mov edi, twin
    mov ecx, 44
    repe cmpsb
    lea eax, [esi - 1]
    sub eax, text
    print "the texts part at "
    print_decimal eax
    print ": "
    movzx eax, byte [esi - 1]
    print_character eax
    print " and "
    movzx eax, byte [edi - 1]
    print_character eax
    newline
    ret

; REP MOVSD and REP STOSB: four bytes at a time, or one.
copy_and_fill:
    mov esi, text
    mov edi, buffer
    mov ecx, 44 / 4
    rep movsd
    mov edi, buffer + 4
    mov ecx, 5
    mov al, '*'
    rep stosb
    call show
    ret

; Moving a text up by four within itself. Forwards, the copy would overrun what is still to be
; copied; STD goes from the end to the start.
overlap:
    std
    mov esi, buffer + 43
    mov edi, buffer + 47
    mov ecx, 44
    rep movsb
    cld
    call show
    ; Forwards by one, on purpose: the first letter runs through the whole text.
    mov esi, buffer
    mov edi, buffer + 1
    mov ecx, 10
    rep movsb
    call show
    ret

; LODSB and STOSB with work in between.
capitals:
    mov esi, text
    mov edi, buffer
.next:
    lodsb
    cmp al, 'a'
    jb .not_small
    sub al, 'a' - 'A'
.not_small:
    stosb
    test al, al
    jnz .next
show:
    mov esi, buffer
    call write_text
    newline
    ret
