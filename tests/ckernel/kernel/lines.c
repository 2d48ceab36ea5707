/*
 * lines.c - a PC's lines, by way of the 8259s and of the I/O APIC, as edges and as levels.
 *
 * COM1 in loopback is a source that can be told when to ask and when not: a byte received holds its
 * line up until it is read. Source: Intel 8259A, 8254, 82093AA, PC16550D data sheets. Next: disk.c.
 */
#include "kernel.h"

enum { PIC = 0x20, PIC2 = 0xA0, PIT = 0x40, PIT_COMMAND = 0x43, PIT_HERTZ = 1193182 };
enum { RATE_GENERATOR = 0x34, ONE_SHOT = 0x30, END = 0x20, VECTOR = 0x64, SLEEP = 0x59 };
enum { DATA, ENABLE, IDENTIFY, LINE_CONTROL, MODEM_CONTROL, STATUS };
enum { ON_RECEIVE = 1, LOOP = 0x10, OUT2 = 8, READY = 1, TABLE = 0x10 };

static volatile u32 levels_left; /* ends of interrupt with the line still up */

/* -- The I/O APIC ----------------------------------------------------------------------------------- */

u32 io_apic_read(u8 number) {
    *(volatile u32 *)io_apic = number;
    return *(volatile u32 *)(io_apic + 16);
}

void io_apic_write(u8 number, u32 value) {
    *(volatile u32 *)io_apic = number;
    *(volatile u32 *)(io_apic + 16) = value;
}

void route(u8 pin, u32 low) {
    io_apic_write((u8)(TABLE + 2 * pin + 1), apic_read(APIC_ID));
    io_apic_write((u8)(TABLE + 2 * pin), low);
}

static u32 entry_of(u8 pin) {
    return io_apic_read((u8)(TABLE + 2 * pin));
}

/* -- The 8259s and the 8254 ------------------------------------------------------------------------ */

void mask_8259s(u16 lines) {
    out8(PIC + 1, (u8)lines);
    out8(PIC2 + 1, (u8)(lines >> 8));
}

static void start_8259s(void) {
    out8(PIC, 0x11);
    out8(PIC2, 0x11);
    out8(PIC + 1, PIC_BASE);
    out8(PIC2 + 1, PIC_BASE + 8);
    out8(PIC + 1, 4);
    out8(PIC2 + 1, 2);
    out8(PIC + 1, 1);
    out8(PIC2 + 1, 1);
    mask_8259s(0xFFFF);
}

void set_timer_hertz(u32 hertz) {
    u32 count = hertz ? PIT_HERTZ / hertz : 0;
    out8(PIT_COMMAND, hertz ? RATE_GENERATOR : ONE_SHOT);
    if (!hertz) return;
    out8(PIT, (u8)count);
    out8(PIT, (u8)(count >> 8));
}

static void end_apic(struct frame *frame) {
    (void)frame;
    apic_end();
}

static void end_8259(struct frame *frame) {
    (void)frame;
    out8(PIC, END);
}

/* A request that was gone when the processor asked which it was. */
static void nothing(struct frame *frame) {
    (void)frame;
}

void pass_time(u32 count) {
    on_vector(SLEEP, end_apic);
    apic_write(APIC_DIVIDE, 11);
    apic_write(APIC_LVT_TIMER, SLEEP);
    for (u32 i = 1; i <= count; i++) {
        apic_write(APIC_INITIAL, 50000);
        wait_for(SLEEP, i);
    }
    apic_write(APIC_LVT_TIMER, MASKED);
}

/* -- COM1 in loopback ------------------------------------------------------------------------------- */

static void start_loopback(void) {
    out8(COM1 + MODEM_CONTROL, LOOP | OUT2);
    out8(COM1 + ENABLE, ON_RECEIVE);
}

static void stop_loopback(void) {
    out8(COM1 + ENABLE, 0);
    while (in8(COM1 + STATUS) & READY) in8(COM1 + DATA);
    out8(COM1 + MODEM_CONTROL, OUT2);
}

static void receive(struct frame *frame) {
    (void)frame;
    in8(COM1 + DATA);
    apic_end();
}

/* Ends the interrupt with the line up, so often; then takes the byte first. */
static void leave_up(struct frame *frame) {
    (void)frame;
    if (levels_left == 0) in8(COM1 + DATA);
    if (levels_left > 0) levels_left--;
    apic_end();
}

/* -- The checks ------------------------------------------------------------------------------------- */

static void check_virtual_wire(void) {
    u8 line = PIC_BASE + TIMER_LINE;
    start_8259s();
    on_vector(line, end_8259);
    on_vector(PIC_BASE + 7, nothing);
    on_vector(SPURIOUS, nothing);
    apic_write(APIC_LINT0, EXTINT);
    apic_write(APIC_LINT1, NMI);
    set_timer_hertz(1000);
    mask_8259s((u16)~1u);
    wait_for(line, 3);
    check("wire: through LINT0 to the 8259's vector", taken[line] >= 3, true);
    check("wire: the APIC serves none of them", apic_has(APIC_ISR, line), false);
    apic_write(APIC_LINT0, EXTINT | MASKED);
    settle();
    taken[line] = 0;
    pass_time(4);
    check("wire: LINT0 is masked", taken[line], 0);
    apic_write(APIC_LINT0, EXTINT);
    settle();
    wait_for(line, 1);
    check("wire: open, it waits no longer", taken[line] >= 1, true);
    apic_write(APIC_TPR, 0xF0);
    wait_for(line, taken[line] + 1);
    check("wire: no task priority holds it back", taken[line] >= 2, true);
    apic_write(APIC_TPR, 0);
    mask_8259s(0xFFFF);
    settle();
    taken[line] = 0;
    pass_time(4);
    check("wire: the 8259 is masked", taken[line], 0);
    apic_write(APIC_LINT0, MASKED);
}

static void check_io_apic(void) {
    u32 version = io_apic_read(1);
    check("pins: so many", (version >> 16 & 0xFF) + 1, PINS);
    route(5, MASKED | LEVEL | 0x99);
    check("pins: an entry", entry_of(5), MASKED | LEVEL | 0x99);
    check("pins: whom it goes to", io_apic_read(TABLE + 11), apic_read(APIC_ID));
    route(5, MASKED);
}

static void check_timer_pin(void) {
    u8 pin = pin_of_line(TIMER_LINE);
    on_vector(VECTOR, end_apic);
    route(pin, VECTOR);
    set_timer_hertz(1000);
    wait_for(VECTOR, 3);
    check("pins: the timer's, an edge each time", taken[VECTOR] >= 3, true);
    route(pin, MASKED | VECTOR);
    settle();
    taken[VECTOR] = 0;
    pass_time(4);
    check("pins: masked", taken[VECTOR], 0);
    set_timer_hertz(0);
}

void check_lines(void) {
    check_virtual_wire();
    check_io_apic();
    check_timer_pin();
}

static void check_edges(void) {
    u8 pin = pin_of_line(COM1_LINE);
    u32 early;
    on_vector(VECTOR, end_apic);
    route(pin, VECTOR);
    start_loopback();
    out8(COM1 + DATA, 'a');
    settle();
    early = taken[VECTOR];
    out8(COM1 + DATA, 'b'); /* the line is up already: no edge */
    settle();
    stop_loopback();
    check("edges: one as it rises", early, 1);
    check("edges: none while it is up", taken[VECTOR], 1);
    on_vector(VECTOR, end_apic);
    route(pin, MASKED | VECTOR);
    start_loopback();
    out8(COM1 + DATA, 'c');
    settle();
    route(pin, VECTOR);
    settle();
    stop_loopback();
    check("edges: one that nobody hears is lost", taken[VECTOR], 0);
    on_vector(VECTOR, receive);
    start_loopback();
    for (u32 i = 0; i < 5; i++) {
        out8(COM1 + DATA, 'd');
        settle();
    }
    stop_loopback();
    check("edges: five bytes, five edges", taken[VECTOR], 5);
    route(pin, MASKED);
}

static void check_level_pin(void) {
    u8 pin = pin_of_line(COM1_LINE);
    u32 waiting, before, after;
    on_vector(VECTOR, leave_up);
    levels_left = 3;
    route(pin, LEVEL | VECTOR);
    start_loopback();
    out8(COM1 + DATA, 'a');
    waiting = entry_of(pin) & REMOTE_IRR;
    before = apic_has(APIC_TMR, VECTOR);
    settle();
    after = entry_of(pin) & REMOTE_IRR;
    stop_loopback();
    check("levels: taken by the processor, not ended yet", waiting, REMOTE_IRR);
    check("levels: as a level", before, true);
    check("levels: again at each end while it is up", taken[VECTOR], 4);
    check("levels: ended", after, 0);
}

static void check_level_mask(void) {
    u8 pin = pin_of_line(COM1_LINE);
    u32 masked, open;
    on_vector(VECTOR, leave_up);
    levels_left = 0;
    route(pin, MASKED | LEVEL | VECTOR);
    start_loopback();
    out8(COM1 + DATA, 'b');
    settle();
    masked = taken[VECTOR];
    route(pin, LEVEL | VECTOR);
    settle();
    open = taken[VECTOR];
    stop_loopback();
    check("levels: masked", masked, 0);
    check("levels: not lost, for it is up still", open, 1);
    route(pin, MASKED);
}

void check_levels(void) {
    check_edges();
    check_level_pin();
    check_level_mask();
}
