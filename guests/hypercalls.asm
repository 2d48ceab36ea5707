; hypercalls - a kernel that knows it may be a guest, and asks its hypervisor by name.
;
; What it would otherwise do by devices, one exit for each port access, it asks for in one exit:
; number in EAX, arguments in EBX, ECX, EDX and ESI, then INT. Built by `seventeen asm --paravirt`
; and run under paravirt, it is answered. On a bare machine INT finds the gate that this kernel has
; put there itself, whose handler says what a hypervisor would say of a call that it does not know.

%include "guest.inc"
%include "interrupts.inc"
%include "hypercall.inc"

NO_SUCH_CALL    equ 1000
NO_SUCH_ADDRESS equ 0x70000000          ; far behind any memory

start:
    call install_gdt
    call install_interrupts
    mov edx, HYPERCALL_VECTOR
    mov eax, nobody
    mov cl, GATE_INTERRUPT
    call set_gate

    mov ebx, information
    hypercall vm_info
    test eax, eax
    js .alone
    call tell_information
    call tell_time
    call write_at_once
    call several_at_once
    call be_refused
    mov ebx, 0
    hypercall shutdown
.alone:
    print_line "nobody answers: this looks like a bare machine"
    exit 0

; The handler of the vector where there is no hypervisor.
nobody:
    mov eax, HYPERCALL_ENOSYS
    iret

tell_information:
    print "a hypervisor answers: "
    print_decimal [information + VM_INFO_CALLS]
    print " calls, "
    mov eax, [information + VM_INFO_MEMORY]
    shr eax, 20
    print_decimal eax
    print " MiB, "
    print_decimal [information + VM_INFO_TICK_RATE]
    print_line " ticks in a second"
    ret

; A tick is an instruction, and INT is one, however much the hypervisor does for it.
tell_time:
    mov ebx, earlier
    hypercall get_time
    mov ebx, later
    hypercall get_time
    mov eax, [later]
    sub eax, [earlier]
    print "from one question for the time to the next: "
    print_decimal eax
    print_line " ticks"
    ret

write_at_once:
    mov ebx, sentence
    mov ecx, sentence_end - sentence
    hypercall console_write
    print "bytes written in one exit: "
    print_decimal eax
    newline
    ret

; Four calls in one exit. Each has its own result, whatever came of the others.
several_at_once:
    mov ebx, calls
    mov ecx, (calls_end - calls) / MULTICALL_SIZE
    hypercall multicall
    print "calls made in one exit: "
    print_decimal eax
    newline
    mov edi, calls
.next:
    print "  call "
    print_decimal [edi + MULTICALL_NUMBER]
    mov eax, [edi + MULTICALL_RESULT]
    call tell_result
    add edi, MULTICALL_SIZE
    cmp edi, calls_end
    jb .next
    ret

be_refused:
    print "call 1000"
    mov eax, NO_SUCH_CALL
    int HYPERCALL_VECTOR
    call tell_result
    print "writing from where no memory is"
    mov ebx, NO_SUCH_ADDRESS
    mov ecx, 1
    hypercall console_write
    call tell_result
    ret

; EAX = what a call returned.
tell_result:
    test eax, eax
    js .error
    print ": result "
    print_decimal eax
    newline
    ret
.error:
    neg eax
    print ": error "
    print_decimal eax
    newline
    ret

section .data
sentence: db "this sentence left in one exit", 10
sentence_end:

align 4
calls:
    dd HYPERCALL_console_write, sentence, sentence_end - sentence, 0, 0, 0
    dd HYPERCALL_get_time, later, 0, 0, 0, 0
    dd HYPERCALL_multicall, calls, 1, 0, 0, 0       ; not within another
    dd HYPERCALL_shutdown, 1000, 0, 0, 0, 0         ; no exit status is so large
calls_end:

section .bss
alignb 8
earlier:        resq 1
later:          resq 1
information:    resb VM_INFO_SIZE
