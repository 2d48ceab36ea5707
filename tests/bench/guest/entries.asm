; entries.asm - COUNT stores to entries of a page table, of pages that nobody touches.
;
; For tests/bench/translated.py. One page of the table is touched first, the last: so a hypervisor
; that keeps shadows has one of this table, and must hear of stores to it.

%include "guest.inc"
%include "paging.inc"

WINDOW  equ 0x40000000                  ; what the table maps
LAST    equ WINDOW + 1023 * PAGE_SIZE

start:
    call start_paging
    mov edx, LAST
    mov eax, frame + PAGE_PRESENT + PAGE_WRITABLE
    call map_page
    mov byte [LAST], 1
    mov edx, WINDOW
    call page_entry
    mov ebx, eax
    mov eax, frame + PAGE_PRESENT + PAGE_WRITABLE
    mov ebp, COUNT
.table:
    xor ecx, ecx
.entry:
    mov [ebx + ecx * 4], eax
    dec ebp
    jz .done
    inc ecx
    cmp ecx, 1000
    jb .entry
    xor eax, PAGE_PRESENT               ; so that each store changes something
    invlpg [WINDOW]                     ; a kernel must, now and then
    jmp .table
.done:
    exit 0

section .bss
alignb PAGE_SIZE
frame:  resb PAGE_SIZE
