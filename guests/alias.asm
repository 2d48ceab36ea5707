; alias - code changed through another mapping of the same frame.
;
; One frame, two linear addresses: the routine runs at one and is rewritten at the other. The
; address that is written never holds code, as far as anyone can tell from the address; only the
; frame does. After a change through another address the SDM (volume 3, 11.6) asks for a
; serialising instruction before the code runs again; CPUID is one.

%include "guest.inc"
%include "paging.inc"

ALIAS equ 0x40000000

start:
    call start_paging
    mov eax, page
    or eax, PAGE_PRESENT | PAGE_WRITABLE
    mov edx, ALIAS
    call map_page

    mov esi, 0                          ; what the routine is to return
    mov edi, 0                          ; sum of what it did return
.again:
    add esi, 100
    mov [ALIAS + routine - page + 1], esi
    mov eax, 0
    cpuid
    call routine
    print "wrote "
    print_decimal esi
    print ", the routine returned "
    print_decimal eax
    newline
    add edi, eax
    cmp esi, 500
    jb .again

    cmp edi, 1500
    jne .stale
    exit 0
.stale:
    print_line "old code was run"
    exit 1

; A page of its own, so that nothing else is rewritten by the way.
align PAGE_SIZE
page:
routine:
    mov eax, 0                          ; B8 and the four bytes that change
    ret
align PAGE_SIZE
