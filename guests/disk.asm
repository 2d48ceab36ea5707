; disk - counts, on a disk, how often it has been started from it.
;
; What a register holds is gone when the machine stops; what a sector holds is not. So the count is
; in the first sector: read it, add one, write it back, and do not end before the drive says that it
; is safe. The drive is the first of the first IDE channel, driven as the first PCs did: every word
; passes through the processor, and the driver asks again and again whether the drive is busy.
; Reference: ATA/ATAPI-6, 9. Without a drive it says so and ends.

%include "guest.inc"

IDE_DATA            equ 0x1F0           ; the channel's registers
IDE_COUNT           equ 0x1F2
IDE_DEVICE          equ 0x1F6
IDE_STATUS          equ 0x1F7           ; when read
IDE_COMMAND         equ 0x1F7           ; when written

FIRST_DRIVE_BY_LBA  equ 0xE0
READ_SECTORS        equ 0x20
WRITE_SECTORS       equ 0x30
FLUSH_CACHE         equ 0xE7
IDENTIFY_DEVICE     equ 0xEC

STATUS_BUSY         equ 0x80
STATUS_DATA         equ 0x08
STATUS_ERROR        equ 0x01

SECTOR_WORDS        equ 128             ; doublewords, that is
IDENTITY_SECTORS    equ 60 * 2          ; where the answer to IDENTIFY has the number of sectors

section .bss
alignb 4
sector: resb 512

section .text
start:
    mov edx, IDE_DEVICE
    mov al, FIRST_DRIVE_BY_LBA
    out dx, al
    mov al, IDENTIFY_DEVICE
    call command
    in al, dx
    test al, STATUS_DATA
    jz .no_disk                         ; nobody has taken it: a second drive answers for a first
    call read_block
    print "A disk of "
    print_decimal [sector + IDENTITY_SECTORS]
    print_line " sectors."

    mov al, READ_SECTORS
    call first_sector
    call read_block
    inc dword [sector]
    mov al, WRITE_SECTORS
    call first_sector
    call write_block
    mov al, FLUSH_CACHE
    call command

    print "It has been here "
    print_decimal [sector]
    print_line " times."
    exit 0
.no_disk:
    print_line "There is no disk."
    exit 0

; Issues the command in AL for the first sector alone. Changes EAX, ECX, EDX.
first_sector:
    push eax
    mov edx, IDE_COUNT
    mov al, 1
    out dx, al
    mov al, 0                           ; the sector's number: three registers
    mov ecx, 3
.number:
    inc edx
    out dx, al
    loop .number
    pop eax

; Issues the command in AL, and waits until the drive has an answer. Changes EAX, EDX.
command:
    mov edx, IDE_COMMAND
    out dx, al
; Waits until the drive is no longer busy; a drive that reports an error ends the run.
wait_for_drive:
    mov edx, IDE_STATUS
.busy:
    in al, dx
    test al, STATUS_BUSY
    jnz .busy
    test al, STATUS_ERROR
    jnz .failed
    ret
.failed:
    print_line "The drive reports an error."
    exit 1

; The block that the drive has ready, into `sector`. Changes ECX, EDX, EDI.
read_block:
    mov edi, sector
    mov ecx, SECTOR_WORDS
    mov edx, IDE_DATA
    rep insd
    ret

; The block that the drive waits for, from `sector`; returns when it is written.
write_block:
    mov esi, sector
    mov ecx, SECTOR_WORDS
    mov edx, IDE_DATA
    rep outsd
    jmp wait_for_drive
