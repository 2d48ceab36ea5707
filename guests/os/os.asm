; os - a small operating system: preemptive processes in ring 3, each with page tables of its own.
;
; The problem: everything a hypervisor has to get right is done by some operating system in earnest.
; This one does it all in little room: system calls, a timer that takes the processor away, pages
; which appear when first touched, input by interrupt, faults that kill a process and nothing else,
; HLT when there is nothing to do. Rings 0 and 3 only; no disk; 16 MiB of memory at most.
;
; Its parts, a noun each, in the order in which to read them:
;
;     layout.inc      memory map, process record, system call convention
;     frames.inc      machine memory in pieces of 4 KiB
;     spaces.inc      address spaces: page directories, demand-zero pages, copies
;     devices.inc     the APICs in them, if that is the build (os_apic.asm)
;     processes.inc   birth, fork, death and burial of processes
;     scheduler.inc   whose turn it is; sleeping; the timer
;     console.inc     COM1: output, interrupt-driven input, line editing
;     faults.inc      exceptions: a page to be filled, a process to be killed, or a panic
;     syscalls.inc    the table of system calls
;     programs/       what runs in ring 3, the shell first
;
; The kernel is not preemptible: the timer takes the processor from programs only. Interrupts stay
; on during system calls all the same, so what interrupt handlers share is guarded by PUSHF, CLI and
; POPF: the pattern of every kernel, and the one that a deprivileged POPF quietly breaks.

%include "guest.inc"
%include "interrupts.inc"
%ifdef APIC                             ; os_apic.asm
%include "apic.inc"
%else
%include "timer.inc"
%endif
%include "tss.inc"

%include "layout.inc"
%include "frames.inc"
%include "spaces.inc"
%ifdef APIC
%include "devices.inc"
%endif
%include "processes.inc"
%include "scheduler.inc"
%include "console.inc"
%include "faults.inc"
%include "syscalls.inc"

section .text
start:
    call measure_memory                 ; while EAX and EBX are still the loader's
    call install_gdt
    call install_interrupts
    call install_tss
    call install_interrupt_lines
    call install_kernel_space
%ifdef APIC
    call install_devices
%endif
    call install_faults
    call install_syscalls
    call install_console
    call install_timer
    print_line "os: ready, try help"

    mov esi, first_command
    call process_spawn
    cmp eax, 0
    jl .no_shell
    jmp scheduler_start
.no_shell:
    mov esi, .message
    jmp panic
.message: db "there is no memory for the first process", 0

first_command: db "shell", 0

%include "programs/programs.inc"

; The first byte the loader has not used. Must stay the last thing in the last section.
section .bss
alignb PAGE_SIZE
kernel_end:
