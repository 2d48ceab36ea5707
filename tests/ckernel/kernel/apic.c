/*
 * apic.c - the local APIC: its registers, messages to itself, errors, and who comes before whom.
 *
 * Source: SDM volume 3, 11.4 to 11.8. Next: timer.c.
 */
#include "kernel.h"

enum { ENABLE = 0x100, FLAT = 0xFFFFFFFF, LOW = 0x41, LOW_TOO = 0x42, MIDDLE = 0x52, HIGH = 0x63 };
enum {
    SENT_ILLEGAL = 1 << 5,
    ILLEGAL_REGISTER = 1 << 7,
    ERROR_VECTOR = 0x71,
    ILLEGAL = 5,
    NOWHERE = 0x040
};

static volatile u64 last;

u32 apic_read(u32 offset) {
    return *(volatile u32 *)(local_apic + offset);
}

void apic_write(u32 offset, u32 value) {
    *(volatile u32 *)(local_apic + offset) = value;
}

bool apic_has(u32 set, u8 vector) {
    return apic_read(set + vector / 32 * 16u) >> vector % 32 & 1;
}

void apic_end(void) {
    apic_write(APIC_EOI, 0);
}

void send_to_self(u8 vector) {
    apic_write(APIC_ICR, TO_SELF | vector);
}

static void end_at_once(struct frame *frame) {
    (void)frame;
    apic_end();
}

static void note_time(struct frame *frame) {
    last = time_stamp();
    end_at_once(frame);
}

static u32 errors(void) {
    apic_write(APIC_ESR, 0);
    return apic_read(APIC_ESR);
}

static void check_registers(void) {
    u32 version = apic_read(APIC_VERSION);
    check("apic: id", apic_read(APIC_ID) >> 24, 0);
    check("apic: integrated", version & 0xF0, 0x10);
    check("apic: entries of its vector table", (version >> 16 & 0xFF) + 1 >= 4, true);
    apic_write(APIC_SVR, ENABLE | SPURIOUS);
    check("apic: spurious vector", apic_read(APIC_SVR) & 0x1FF, ENABLE | SPURIOUS);
    apic_write(APIC_LDR, 0x02000000);
    check("apic: logical id", apic_read(APIC_LDR), 0x02000000);
    apic_write(APIC_DFR, FLAT);
    check("apic: flat model", apic_read(APIC_DFR), FLAT);
    apic_write(APIC_TPR, 0x35);
    check("apic: task priority", apic_read(APIC_TPR), 0x35);
    check("apic: is the processor's", apic_read(APIC_PPR) & 0xF0, 0x30);
    apic_write(APIC_TPR, 0);
    check("apic: no priority", apic_read(APIC_PPR), 0);
    apic_write(APIC_LVT_TIMER, MASKED | PERIODIC | 0x55);
    check("apic: an entry of the table", apic_read(APIC_LVT_TIMER), MASKED | PERIODIC | 0x55);
    for (u32 set = 0; set < 0x80; set += 16)
        if (apic_read(APIC_ISR + set) | apic_read(APIC_IRR + set))
            check("apic: nothing waits", set, ~0u);
}

static void check_enabling(void) {
    apic_write(APIC_LVT_ERROR, 0x55);
    check("apic: an open entry", apic_read(APIC_LVT_ERROR), 0x55);
    apic_write(APIC_SVR, SPURIOUS);
    check("apic: software disables it", apic_read(APIC_LVT_ERROR), MASKED | 0x55);
    apic_write(APIC_LVT_ERROR, 0x56);
    check("apic: entries stay masked", apic_read(APIC_LVT_ERROR) & MASKED, MASKED);
    apic_write(APIC_SVR, ENABLE | SPURIOUS);
    check("apic: enabled, still", apic_read(APIC_LVT_ERROR) & MASKED, MASKED);
    apic_write(APIC_LVT_ERROR, 0x56);
    check("apic: until opened", apic_read(APIC_LVT_ERROR), 0x56);
    apic_write(APIC_LVT_ERROR, MASKED);
}

static void check_errors(void) {
    u64 begin;
    on_vector(ERROR_VECTOR, note_time);
    on_vector(ILLEGAL, end_at_once);
    errors();
    check("errors: none", errors(), 0);
    apic_write(NOWHERE, 1);
    check("errors: no such register", errors(), ILLEGAL_REGISTER);
    check("errors: told once", errors(), 0);
    send_to_self(ILLEGAL);
    settle();
    check("errors: an illegal vector", errors() & SENT_ILLEGAL, SENT_ILLEGAL);
    check("errors: goes nowhere", taken[ILLEGAL], 0);
    apic_write(APIC_LVT_ERROR, ERROR_VECTOR);
    send_to_self(ILLEGAL);
    settle();
    check("errors: by interrupt", taken[ERROR_VECTOR], 1);
    errors();
    enable();
    begin = time_stamp();
    apic_read(NOWHERE);
    settle();
    check("errors: of a load, too", taken[ERROR_VECTOR], 2);
    if (timed) check("errors: at once", (u32)(last - begin) < 40, true);
    check("errors: which one", errors(), ILLEGAL_REGISTER);
    apic_write(APIC_LVT_ERROR, MASKED);
}

static void check_destinations(void) {
    on_vector(LOW, end_at_once);
    apic_write(APIC_ICR_HIGH, 0);
    apic_write(APIC_ICR, LOW);
    settle();
    check("messages: to its id", taken[LOW], 1);
    apic_write(APIC_ICR, TO_ALL | LOW);
    settle();
    check("messages: to all", taken[LOW], 2);
    apic_write(APIC_ICR, 3 << 18 | LOW);
    settle();
    check("messages: to all others", taken[LOW], 2);
    apic_write(APIC_ICR_HIGH, 0x06000000);
    apic_write(APIC_ICR, LOGICAL | LOW);
    settle();
    check("messages: to a set it is in", taken[LOW], 3);
    apic_write(APIC_ICR_HIGH, 0x05000000);
    apic_write(APIC_ICR, LOGICAL | LOW);
    settle();
    check("messages: to one it is not in", taken[LOW], 3);
    apic_write(APIC_ICR_HIGH, 0x05000000);
    apic_write(APIC_ICR, LOW);
    settle();
    check("messages: to nobody", taken[LOW], 3);
    apic_write(APIC_ICR_HIGH, 0xFF000000);
    apic_write(APIC_ICR, LOW);
    settle();
    check("messages: to everybody", taken[LOW], 4);
    check("messages: sent", apic_read(APIC_ICR) & 1 << 12, 0);
}

void check_local_apic(void) {
    check_registers();
    check_enabling();
    check_errors();
    check_destinations();
}

/* -- Priorities ----------------------------------------------------------------------------------- */

static u8 story[16]; /* vectors as they begin; their complements as they end */
static u32 told;

static void tell(u8 word) {
    if (told < sizeof story) story[told++] = word;
}

static bool story_is(const u8 *expected, u32 count) {
    bool same = told == count;
    for (u32 i = 0; i < count; i++) same = same && story[i] == expected[i];
    told = 0;
    return same;
}

static void say(struct frame *frame) {
    tell((u8)frame->vector);
    apic_end();
    tell((u8)~frame->vector);
}

/* Is interrupted by a higher class, not by its own. */
static void nest(struct frame *frame) {
    tell((u8)frame->vector);
    if (!apic_has(APIC_ISR, LOW) || apic_has(APIC_IRR, LOW)) tell(0);
    if (apic_read(APIC_PPR) != (LOW & 0xF0)) tell(1);
    send_to_self(LOW_TOO);
    send_to_self(HIGH);
    settle();
    if (!apic_has(APIC_IRR, LOW_TOO) || apic_has(APIC_IRR, HIGH)) tell(2);
    apic_end();
    settle();
    tell((u8)~frame->vector);
}

static void check_task_priority(void) {
    static const u8 order[] = {HIGH, (u8)~HIGH, MIDDLE, (u8)~MIDDLE, LOW, (u8)~LOW};
    on_vector(LOW, say);
    on_vector(MIDDLE, say);
    on_vector(HIGH, say);
    apic_write(APIC_TPR, 0x50);
    send_to_self(LOW);
    send_to_self(MIDDLE);
    settle();
    check("priority: its class holds them back", taken[LOW] + taken[MIDDLE], 0);
    check("priority: they wait", apic_has(APIC_IRR, LOW) + apic_has(APIC_IRR, MIDDLE), 2);
    send_to_self(HIGH);
    settle();
    check("priority: but not this", taken[HIGH], 1);
    apic_write(APIC_TPR, 0x4F);
    settle();
    check("priority: lowered, one comes", taken[MIDDLE] << 4 | taken[LOW], 0x10);
    apic_write(APIC_TPR, 0x3F);
    settle();
    check("priority: then the other", taken[LOW], 1);
    check("priority: each by itself", story_is(order, sizeof order), true);
    apic_write(APIC_TPR, 0);
}

static void check_order(void) {
    static const u8 order[] = {HIGH, (u8)~HIGH, MIDDLE, (u8)~MIDDLE, LOW, (u8)~LOW};
    send_to_self(LOW);
    send_to_self(HIGH);
    send_to_self(MIDDLE);
    send_to_self(MIDDLE);
    settle();
    check("priority: the highest first, each once", story_is(order, sizeof order), true);
}

static void check_nesting(void) {
    static const u8 nested[] = {LOW, HIGH, (u8)~HIGH, LOW_TOO, (u8)~LOW_TOO, (u8)~LOW};
    on_vector(LOW, nest);
    on_vector(LOW_TOO, say);
    send_to_self(LOW);
    settle();
    check("priority: they nest by class", story_is(nested, sizeof nested), true);
    check("priority: nothing is left", apic_read(APIC_PPR), 0);
}

void check_priorities(void) {
    check_task_priority();
    check_order();
    check_nesting();
}
