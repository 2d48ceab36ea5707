; nano_touch - pages that appear when they are touched.
;
; What an operating system does for every new process: a page is not there, the fault's handler puts
; it there, and the load is done again. [pages] of them make one round, [count] is the number of
; faults; then all are taken away at once. With shadow page tables a page costs two faults: the
; guest's, and a hidden one when the shadow is found to lack what the guest has just put in its own.

%include "nano.inc"
%include "interrupts.inc"
%include "paging.inc"

WINDOW      equ 0x00C00000              ; the first linear address that is touched
FRAMES      equ 0x00200000              ; machine memory behind it; mapped one to one as well
MOST_PAGES  equ 512

start:
    call read_command_line
    call install_gdt
    call install_interrupts
    call start_paging
    cmp dword [pages], MOST_PAGES
    ja .too_many
    mov edx, WINDOW
    call page_entry
    mov ebp, eax                        ; where the window's entries begin
    handle_vector VECTOR_PAGE_FAULT, on_page_fault
    mov ecx, [count]
    mov edx, 0
.round:
    call touch_round
    test ecx, ecx
    jnz .round
    report "touch"
.too_many:
    print_line "touch: more pages than there are frames"
    exit 1

; Touches [pages] pages, or the ECX that are left, and takes them away again.
touch_round:
    mov esi, [pages]
    mov edi, WINDOW
.touch:
    mov eax, [edi]
    add edi, PAGE_SIZE
    dec ecx
    jz .take
    dec esi
    jnz .touch
.take:
    push ecx
    mov edi, ebp
    mov ecx, [pages]
    mov eax, 0
    rep stosd
    mov eax, cr3
    mov cr3, eax                        ; all are forgotten
    pop ecx
    ret

; EDI = the address touched.
on_page_fault:
    inc edx
    push eax
    push ebx
    lea eax, [edi - WINDOW]
    mov ebx, eax
    shr ebx, 12
    add eax, FRAMES | PAGE_PRESENT | PAGE_WRITABLE
    mov [ebp + ebx * 4], eax
    pop ebx
    pop eax
    add esp, 4
    iret
