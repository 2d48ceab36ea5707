/*
 * cpu.c - what CPUID and a model-specific register say of the processor.
 *
 * Source: SDM volume 2, CPUID; volume 3, 11.4.4. Next: tables.c.
 */
#include "kernel.h"

enum {
    PSE = 1 << 3,
    TSC = 1 << 4,
    MSR = 1 << 5,
    CX8 = 1 << 8,
    APIC = 1 << 9,
    CMOV = 1 << 15,
    APIC_BASE_MSR = 0x1B,
    BASE = 0xFEE00000,
    BOOTSTRAP = 1 << 8,
    ENABLED = 1 << 11,
    ID_FLAG = 1 << 21
};

static u32 flip_flag(u32 flag) {
    u32 before, after;
    __asm__ volatile("pushf\n\t"
                     "pop %0\n\t"
                     "mov %0, %1\n\t"
                     "xor %2, %1\n\t"
                     "push %1\n\t"
                     "popf\n\t"
                     "pushf\n\t"
                     "pop %1\n\t"
                     "push %0\n\t"
                     "popf"
                     : "=&r"(before), "=&r"(after)
                     : "r"(flag));
    return before ^ after;
}

void check_cpu(void) {
    u32 wanted = PSE | TSC | MSR | CX8 | APIC | CMOV, eax = 0, ebx, ecx = 0, edx, low, high;
    check("cpu: EFLAGS.ID can be changed", flip_flag(ID_FLAG), ID_FLAG);
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    check("cpu: CPUID has a leaf 1", eax >= 1, true);
    eax = 1, ecx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    check("cpu: features", edx & wanted, wanted);
    check("cpu: its APIC's first id", ebx >> 24, 0);
    check("cpu: it is of family 5 or 6", (eax >> 8 & 15) == 5 || (eax >> 8 & 15) == 6, true);
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(APIC_BASE_MSR));
    check("cpu: where its APIC is", low, BASE | BOOTSTRAP | ENABLED);
    check("cpu: and nothing above", high, 0);
}
