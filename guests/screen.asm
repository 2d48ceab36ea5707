; screen - a line typed on the keyboard, in colours on the screen.
;
; The screen is memory: two bytes a character, itself and its colours, from 0xB8000 on; to write is
; a store and nothing more. The cursor is a register of the video card, found behind another that
; says which is meant. The keyboard controller holds a byte for us when bit 0 of its status says so:
; a key has gone down, or, with bit 7, up. Enter ends the line, as does half a hundredth of a second
; without a key. Reference: IBM PS/2 technical reference. On COM1 it only says how many keys it saw.

%include "guest.inc"

SCREEN              equ 0xB8000
COLUMNS             equ 80
WHITE_ON_BLUE       equ 0x1F
FIRST_COLOUR        equ 0x09            ; bright blue; the others follow
LAST_COLOUR         equ 0x0F

VIDEO_INDEX         equ 0x3D4           ; which register; the register itself is one further
CURSOR_HIGH         equ 0x0E
CURSOR_LOW          equ 0x0F

KEYBOARD            equ 0x60
KEYBOARD_STATUS     equ 0x64
KEY_WAITS           equ 0x01
KEY_UP              equ 0x80
KEY_ENTER           equ 0x1C

PATIENCE            equ 100             ; looks at the keyboard without a key
DELAY               equ 5000            ; instructions between two of them

section .data
title: db "Type a line:", 0
; What the keys from 0 on stand for, without Shift; 0: nothing that can be shown.
keys:
    db 0, 0, "1234567890-=", 0, 0, "qwertyuiop[]", 0, 0, "asdfghjkl;'`", 0, "\zxcvbnm,./"
    times 0x39 - ($ - keys) db 0
    db " "
KEYS equ $ - keys

section .text
start:
    mov edi, SCREEN                     ; clear it: blanks, light grey on black
    mov ecx, COLUMNS * 25 / 2
    mov eax, 0x07200720
    rep stosd

    mov edi, SCREEN
    mov esi, title
    mov ah, WHITE_ON_BLUE
.title:
    lodsb
    test al, al
    jz .line
    stosw
    jmp .title

.line:
    add edi, 2
    mov ebx, 0                          ; keys seen
    mov ah, FIRST_COLOUR
.key:
    call show_cursor
    call wait_for_key
    jc .end
    cmp al, KEY_ENTER
    je .end
    movzx ecx, al
    cmp ecx, KEYS
    jae .key
    mov al, [keys + ecx]
    test al, al
    jz .key
    inc ebx
    stosw                               ; the character, and AH for its colour
    inc ah
    cmp ah, LAST_COLOUR
    jbe .key
    mov ah, FIRST_COLOUR
    jmp .key

.end:
    print_decimal ebx
    print_line " keys."
    exit 0

; AL = the next key that goes down; carry: none does. Keeps AH and EBX.
wait_for_key:
    mov ebp, PATIENCE
.look:
    in al, KEYBOARD_STATUS
    test al, KEY_WAITS
    jz .nothing
    in al, KEYBOARD
    test al, KEY_UP
    jnz wait_for_key
    clc
    ret
.nothing:
    mov ecx, DELAY
.pause:
    loop .pause
    dec ebp
    jnz .look
    stc
    ret

; Puts the cursor at the cell at EDI. Keeps AH and EBX.
show_cursor:
    push eax
    mov ecx, edi
    sub ecx, SCREEN
    shr ecx, 1                          ; cells, not bytes
    mov edx, VIDEO_INDEX
    mov al, CURSOR_LOW
    out dx, al
    inc edx
    mov al, cl
    out dx, al
    dec edx
    mov al, CURSOR_HIGH
    out dx, al
    inc edx
    mov al, ch
    out dx, al
    pop eax
    ret
