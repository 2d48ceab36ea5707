; paging - a tour of the memory management unit.
;
; An address goes through the page directory and a page table before it reaches memory. On the way
; the processor may refuse (page fault), and it leaves marks (accessed, dirty). Each stop of the
; tour shows one thing and says what it saw.

%include "guest.inc"
%include "interrupts.inc"
%include "paging.inc"

WINDOW      equ 0x40000000              ; linear addresses with no memory of their own
OTHER       equ 0x40001000
LARGE       equ 0x80000000

CR4_PSE     equ 0x10

section .bss
alignb PAGE_SIZE
first:  resb PAGE_SIZE
second: resb PAGE_SIZE

section .text
start:
    call install_gdt
    call install_interrupts
    call start_paging
    on_vector VECTOR_PAGE_FAULT, on_page_fault
    print_line "paging is on, and nothing has moved"

    call two_names
    call missing_page
    call read_only_page
    call marks
    call remap
    call large_page
    exit 0

; A frame may be mapped twice: what is written under one name is read under the other.
two_names:
    mov dword [first], 1234
    mov edx, WINDOW
    mov eax, first + PAGE_PRESENT + PAGE_WRITABLE
    call map_page
    print "two names: wrote 1234 to one, read "
    print_decimal [WINDOW]
    print_line " from the other"
    ret

; Nothing is mapped at OTHER. The fault handler mends that, and the same instruction runs again.
missing_page:
    print "missing page: "
    mov eax, [OTHER + 8]
    print "then read "
    print_decimal eax
    newline
    ret

; Present but read-only. With CR0.WP ring 0 is refused as well.
read_only_page:
    mov edx, WINDOW
    mov eax, first + PAGE_PRESENT
    call map_page
    print "read-only page: "
    mov dword [WINDOW], 5678
    print "then wrote "
    print_decimal [first]
    newline
    ret

; EBX = frame. Says what the processor told, and makes the access possible.
on_page_fault:
    mov eax, cr2
    print "fault at "
    print_hex eax
    test dword [ebx + FRAME_ERROR], 2
    jz .read
    print ", a write"
    jmp .cause
.read:
    print ", a read"
.cause:
    test dword [ebx + FRAME_ERROR], 1
    jz .absent
    print ", not allowed; "
    mov eax, first + PAGE_PRESENT + PAGE_WRITABLE
    jmp .mend
.absent:
    print ", not present; "
    mov dword [second + 8], 42
    mov eax, second + PAGE_PRESENT + PAGE_WRITABLE
.mend:
    mov edx, cr2
    call map_page
    ret

; The processor marks an entry when the page is read (accessed) and when it is written (dirty).
marks:
    mov edx, WINDOW
    mov eax, first + PAGE_PRESENT + PAGE_WRITABLE
    call map_page
    print "untouched:"
    call show_marks
    mov ecx, [WINDOW]
    print ", read:"
    call show_marks
    mov [WINDOW], ecx
    print ", written:"
    call show_marks
    newline
    ret

; EDX = linear address.
show_marks:
    call page_entry
    mov eax, [eax]
    test eax, PAGE_ACCESSED
    jz .not_accessed
    print " accessed"
.not_accessed:
    test eax, PAGE_DIRTY
    jz .not_dirty
    print " dirty"
.not_dirty:
    test eax, PAGE_ACCESSED | PAGE_DIRTY
    jnz .done
    print " no marks"
.done:
    ret

; The processor remembers translations; INVLPG (in map_page) makes it forget one.
remap:
    mov dword [first], 1
    mov dword [second], 2
    print "one name, two frames: "
    mov edx, WINDOW
    mov eax, first + PAGE_PRESENT
    call map_page
    print_decimal [WINDOW]
    print " and then "
    mov eax, second + PAGE_PRESENT
    call map_page
    print_decimal [WINDOW]
    newline
    ret

; A directory entry can map 4 MiB by itself, once CR4.PSE allows it: here the first 4 MiB again.
large_page:
    mov eax, cr4
    or eax, CR4_PSE
    mov cr4, eax
    mov dword [page_directory + LARGE / 0x400000 * 4], PAGE_PRESENT | PAGE_WRITABLE | PAGE_LARGE
    mov dword [first], 2026
    print "a page of 4 MiB: read "
    print_decimal [LARGE + first]
    newline
    ret
