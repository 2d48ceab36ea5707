; disk_registers - what the registers of a disk say after commands of all kinds, for comparing.
;
; Each row is written to the registers of the first channel as it stands; then are printed how many
; doublewords have passed, a sum of those read, the status and the error register. A drive that asks
; for data gets words that count. The image has 64 sectors.

%include "guest.inc"

BASE    equ 0x1F0
CONTROL equ 0x3F6

; A row: name, features, count, address, device, command; and a byte to fill it up.
%macro row 7
section .data
%%name: db %1, 0
section .rows progbits alloc noexec nowrite align=4
    dd %%name
    db %2, %3, (%4) & 0xFF, (%4) >> 8 & 0xFF, (%4) >> 16 & 0xFF, %5, %6, %7
%endmacro

LBA     equ 0xE0
SECOND  equ 0xF0
CHS     equ 0xA0

section .rows progbits alloc noexec nowrite align=4
rows:
    row "identify packet",  0, 0, 0, LBA, 0xA1, 0
    row "read",             0, 1, 5, LBA, 0x20, 0
    row "read without retry", 0, 2, 7, LBA, 0x21, 0
    row "read the last",    0, 1, 63, LBA, 0x20, 0
    row "read past the end", 0, 1, 64, LBA, 0x20, 0
    row "read over the end", 0, 4, 62, LBA, 0x20, 0
    row "read far away",    0, 1, 0xFFFFFF, LBA + 15, 0x20, 0
    row "read by cylinder", 0, 1, 0x000002, CHS, 0x20, 0
    row "read LBA48",       0, 1, 9, LBA, 0x24, 0
    row "write",            0, 3, 20, LBA, 0x30, 0
    row "read it back",     0, 3, 20, LBA, 0x20, 0
    row "write LBA48",      0, 1, 30, LBA, 0x34, 0
    row "write past the end", 0, 1, 64, LBA, 0x30, 0
    row "multiple of 3",    0, 3, 0, LBA, 0xC6, 0
    row "multiple of 4",    0, 4, 0, LBA, 0xC6, 0
    row "read multiple",    0, 10, 18, LBA, 0xC4, 0
    row "write multiple",   0, 6, 40, LBA, 0xC5, 0
    row "read multiple LBA48", 0, 9, 38, LBA, 0x29, 0
    row "write multiple LBA48", 0, 5, 50, LBA, 0x39, 0
    row "no multiple",      0, 0, 0, LBA, 0xC6, 0
    row "read multiple without", 0, 1, 0, LBA, 0xC4, 0
    row "verify",           0, 4, 8, LBA, 0x40, 0
    row "recalibrate",      0, 0, 0, LBA, 0x10, 0
    row "seek",             0, 0, 3, LBA, 0x70, 0
    row "parameters",       0, 63, 0, CHS + 15, 0x91, 0
    row "write cache on",   2, 0, 0, LBA, 0xEF, 0
    row "PIO mode 4",       3, 12, 0, LBA, 0xEF, 0
    row "no such feature",  0x99, 0, 0, LBA, 0xEF, 0
    row "check power",      0, 0, 0, LBA, 0xE5, 0
    row "standby",          0, 0, 0, LBA, 0xE0, 0
    row "idle",             0, 0, 0, LBA, 0xE3, 0
    row "flush",            0, 0, 0, LBA, 0xE7, 0
    row "flush LBA48",      0, 0, 0, LBA, 0xEA, 0
    row "packet",           0, 0, 0, LBA, 0xA0, 0
    row "no such command",  0, 0, 0, LBA, 0x81, 0
    row "no operation",     0, 0, 0, LBA, 0x00, 0
    row "absent",           0, 1, 0, SECOND, 0xEC, 0
    row "diagnose",         0, 0, 0, LBA, 0x90, 0
rows_end:

section .text
start:
    mov ebx, rows
.next:
    mov esi, [ebx]
    call write_text
    print ": "
    call write_row
    call answer
    newline
    add ebx, 12
    cmp ebx, rows_end
    jb .next

    mov edx, CONTROL                    ; a reset, from whatever was selected
    mov al, 4
    out dx, al
    mov ecx, 1000
.held:
    in al, dx
    loop .held
    mov al, 0
    out dx, al
    call settle
    print "reset:"
    call registers
    newline
    exit 0

; The row at EBX to the registers; status and command are the last.
write_row:
    mov edx, BASE + 6                   ; the drive first, or the others go nowhere
    mov al, [ebx + 9]
    out dx, al
    mov ecx, 0
.register:
    lea edx, [ecx + BASE + 1]
    mov al, 0                           ; LBA48's upper half
    out dx, al
    mov al, [ebx + ecx + 4]
    out dx, al
    inc ecx
    cmp ecx, 5
    jb .register
    mov edx, BASE + 7
    mov al, [ebx + 10]
    out dx, al
    ret

; Follows the drive until it asks for nothing more: prints blocks and their sum, status and error.
answer:
    mov ebp, 0                          ; the sum
    mov edi, 0                          ; doublewords
.look:
    call settle
    test al, 8
    jz .end
    mov edx, BASE
    test byte [ebx + 10], 0x10          ; of these commands, those that write have it
    jnz .give
    cmp byte [ebx + 10], 0xC5
    je .give
    in eax, dx
    rol ebp, 1
    add ebp, eax
    inc edi
    jmp .look
.give:
    mov eax, edi
    imul eax, eax, 0x01010107
    out dx, eax
    inc edi
    jmp .look
.end:
    push eax
    print_decimal edi
    print " "
    print_hex ebp
    print " status "
    pop eax
    movzx eax, al
    print_hex eax
    mov edx, BASE + 1
    in al, dx
    movzx eax, al
    print " error "
    print_hex eax
    ret

; Waits until the drive is not busy; its status in AL.
settle:
    mov edx, BASE + 7
.busy:
    in al, dx
    test al, 0x80
    jnz .busy
    ret

; Prints registers 1 to 7.
registers:
    mov ecx, 1
.next:
    lea edx, [ecx + BASE]
    in al, dx
    movzx eax, al
    print " "
    print_hex eax
    inc ecx
    cmp ecx, 8
    jb .next
    ret
