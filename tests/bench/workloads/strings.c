/* strings.c - words of a text: byte-wise copy, length, compare and hash, as string libraries do. */
#include "workload.h"

enum { TEXT = 8192, BUCKETS = 256, WORD = 32, WORDS = 512 };

static char text[TEXT + 1];
static char words[WORDS][WORD];
static uint16_t next_word[WORDS], bucket[BUCKETS], counts[WORDS];

static void prepare(void) {
    uint32_t seed = 17, at = 0;
    while (at < TEXT - 8) {
        uint32_t length = 2 + next_random(&seed) % 3;
        while (length--) text[at++] = (char)('a' + next_random(&seed) % 4);
        text[at++] = ' ';
    }
    text[at] = 0;
}

static uint32_t hash(const char *word) {
    uint32_t value = 5381;
    while (*word) value = value * 33 + (uint8_t)*word++;
    return value;
}

static int equal(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* Copies a word of the text; returns where the next one starts. */
static const char *take_word(char *to, const char *from) {
    while (*from && *from != ' ') *to++ = *from++;
    *to = 0;
    return *from ? from + 1 : from;
}

/* Counts each different word; returns how many there are. Word 0 stands for "none". */
static uint32_t count_words(void) {
    uint32_t used = 1;
    for (int i = 0; i < BUCKETS; i++) bucket[i] = 0;
    for (const char *from = text; *from && used < WORDS - 1;) {
        from = take_word(words[used], from);
        uint16_t *head = &bucket[hash(words[used]) % BUCKETS], found = *head;
        while (found && !equal(words[found], words[used])) found = next_word[found];
        if (found) {
            counts[found]++;
            continue;
        }
        counts[used] = 1;
        next_word[used] = *head;
        *head = (uint16_t)used++;
    }
    return used;
}

uint32_t workload(uint32_t iterations) {
    uint32_t sum = 0;
    prepare();
    while (iterations--) {
        uint32_t used = count_words();
        for (uint32_t i = 1; i < used; i++) sum = fold(sum, counts[i]);
    }
    return sum;
}
