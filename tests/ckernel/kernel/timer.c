/*
 * timer.c - the local APIC's timer: once and again and again, by every divisor.
 *
 * Where time is that of instructions it counts ticks, and RDTSC can tell how many. Source: SDM volume
 * 3, 11.5.4. Next: lines.c.
 */
#include "kernel.h"

enum { VECTOR = 0x58, COUNT = 3000, LONG = 1 << 30 };

/* Codes of the divide register by their logarithm: 1, 2, 4 ... 128. */
static const u8 codes[8] = {11, 0, 1, 2, 3, 8, 9, 10};

static volatile u64 last;

static void on_timer(struct frame *frame) {
    (void)frame;
    last = time_stamp();
    apic_end();
}

static void start(u32 mode, u32 logarithm, u32 count) {
    apic_write(APIC_LVT_TIMER, mode | VECTOR);
    apic_write(APIC_DIVIDE, codes[logarithm]);
    apic_write(APIC_INITIAL, count);
}

static void check_once(u32 logarithm) {
    char name[] = "timer: once, divided by 2 to the 0";
    u64 begin;
    name[sizeof name - 2] = (char)('0' + logarithm);
    on_vector(VECTOR, on_timer);
    start(0, logarithm, COUNT);
    begin = time_stamp();
    wait_for(VECTOR, 1);
    pass_time(4);
    check(name, taken[VECTOR], 1);
    check("timer: and stays at 0", apic_read(APIC_CURRENT), 0);
    /* From the store to the handler's RDTSC are some instructions. */
    if (timed) check("timer: on time", (u32)(last - begin) - (COUNT << logarithm) < 80, true);
}

/* The current count against RDTSC: both looked at twice. */
static void check_count(u32 logarithm) {
    u32 first, second, ticks;
    u64 begin, finish;
    start(MASKED, logarithm, LONG);
    first = apic_read(APIC_CURRENT);
    begin = time_stamp();
    for (volatile u32 i = 0; i < 1000; i++)
        ;
    second = apic_read(APIC_CURRENT);
    finish = time_stamp();
    ticks = (u32)(finish - begin);
    check("timer: counts down", second < first, true);
    if (timed)
        check("timer: as fast as it says", ((first - second) << logarithm) - ticks + 256 < 512,
              true);
    start(MASKED, logarithm, 0);
    check("timer: can be stopped", apic_read(APIC_CURRENT), 0);
}

static void check_periodic(void) {
    u64 begin;
    on_vector(VECTOR, on_timer);
    start(PERIODIC, 2, COUNT);
    begin = time_stamp();
    wait_for(VECTOR, 5);
    apic_write(APIC_LVT_TIMER, MASKED);
    check("timer: again and again", taken[VECTOR] >= 5, true);
    if (timed) check("timer: five periods", (u32)(last - begin) - 5 * (COUNT << 2) < 80, true);
    check("timer: starts anew by itself", apic_read(APIC_INITIAL), COUNT);
    apic_write(APIC_INITIAL, 0);
    settle();
    apic_write(APIC_EOI, 0);
    taken[VECTOR] = 0;
    pass_time(3);
    check("timer: stopped", taken[VECTOR], 0);
}

static void check_masked(void) {
    on_vector(VECTOR, on_timer);
    start(MASKED, 0, COUNT);
    for (u32 i = 0; i < 1000000 && apic_read(APIC_CURRENT); i++)
        ;
    settle();
    check("timer: masked, it comes to 0 as well", apic_read(APIC_CURRENT), 0);
    check("timer: and nobody hears", taken[VECTOR], 0);
}

void check_timer(void) {
    for (u32 i = 0; i < sizeof codes; i++) check_once(i);
    check_count(0);
    check_count(4);
    check_count(7);
    check_periodic();
    check_masked();
}
