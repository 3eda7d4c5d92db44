/* The kernel without Python, for other processors and for sanitizers; check.py compiles, feeds and compares it.
 *
 *   driver PATH <cases >results     or     driver, which lists the paths that are here
 *
 * A case: six int64 (layers, tokens a layer, width, stored, rows, whether contributions are wanted), then digits, units,
 * offsets, tokens, scales and rows. A result: int64, what `score_rows` returned or -3 for digits that do not fit; after
 * -1 scores and contributions. Every array has memory of its own, of exactly its size, so that a sanitizer sees each byte
 * that is read beside it. */
#ifdef IN_PLAIN_C /* SIMDe computes instructions in C that neither this processor nor its emulator has. */
#include <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#define target(instructions)
#define __builtin_cpu_supports(instructions) 1
#endif
#define LINKEDOUT_WITHOUT_PYTHON
#include "../../linkedout_edge/_kernel.c"

#include <stdio.h>

static void *array(size_t count, size_t size) {
    void *memory = malloc(count * size);
    if (count * size != 0 && (memory == NULL || fread(memory, size, count, stdin) != count)) exit(3);
    return memory;
}

static void put(const void *memory, size_t count, size_t size) {
    if (count != 0 && fwrite(memory, size, count, stdout) != count) exit(4);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        for (size_t n = 0; n < PATHS; n++)
            if (paths[n].is_here()) puts(paths[n].name);
        return 0;
    }
    const Path *path = find_path(argv[1]);
    if (path == NULL) return 2;
    int64_t head[6];
    while (fread(head, sizeof(*head), 6, stdin) == 6) {
        const size_t layers = (size_t)head[0], count = layers * (size_t)head[1], width = (size_t)head[2];
        const size_t stored = (size_t)head[3], total = (size_t)head[4], split = head[5] ? total * layers : 0;
        int16_t *digits = array(count * width, sizeof(*digits));
        float *units = array(count, sizeof(*units)), *offsets = array(layers, sizeof(*offsets));
        int8_t *tokens = array(stored * count * width, sizeof(*tokens));
        float *scales = array(stored * count, sizeof(*scales));
        int64_t *rows = array(total, sizeof(*rows));
        float *scores = malloc(total * sizeof(*scores)), *contributions = malloc(split * sizeof(*contributions));
        const Query query = {.digits = digits, .units = units, .offsets = offsets, .layers = layers,
                             .per_layer = (size_t)head[1], .width = width};
        const Task task = {.query = query, .tokens = tokens, .scales = scales, .rows = rows, .scores = scores,
                           .contributions = head[5] ? contributions : NULL, .stored = stored, .total = total};
        const int64_t wrong = digits_fit(digits, count, width) ? score_rows(path, task) : -3;
        put(&wrong, 1, sizeof(wrong));
        if (wrong == -1) {
            put(scores, total, sizeof(*scores));
            put(contributions, split, sizeof(*contributions));
        }
        free(digits), free(units), free(offsets), free(tokens), free(scales), free(rows), free(scores), free(contributions);
    }
    return 0;
}
