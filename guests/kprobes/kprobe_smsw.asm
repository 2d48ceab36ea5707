; kprobe_smsw - SMSW in a kernel: does it find CR0 as it is?
;
; MOV from CR0 traps and can be answered with the guest's value; SMSW reads the real one. There
; paging is always on, for a shadow table stands behind every guest, and so is write protection.

%include "kprobe.inc"

CR0_TS equ 8
CR0_WP equ 0x10000
CR0_PG equ 0x80000000

start:
    call install_kernel_probe
    mov ecx, cr0
    smsw ebx                            ; into a register: all of CR0
    judge ebx, ecx
    yes "SMSW in the kernel: the same as MOV from CR0."
    no "SMSW in the kernel: not the same as MOV from CR0."
    judge_bit ebx, CR0_PG
    yes "PG = 1, though the kernel never set it."
    no "PG = 0: paging is off."
    judge_bit ebx, CR0_WP
    yes "WP = 1, though the kernel never set it."
    no "WP = 0: the kernel may write read-only pages."
    or ecx, CR0_TS
    mov cr0, ecx
    smsw bx
    clts
    judge_bit ebx, CR0_TS
    yes "TS = 1, as the kernel set it."
    no "TS = 0, though the kernel set it."
    exit 0
