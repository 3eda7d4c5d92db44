/* The scoring kernel of linkedout_edge/_kernel.c, without Python. */
#ifndef LINKEDOUT_KERNEL_H
#define LINKEDOUT_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const int16_t *digits; /* [layers][per_layer][width] */
    const float *units;    /* [layers][per_layer] */
    const float *offsets;  /* [layers] */
    size_t layers, per_layer, width;
    const int8_t *tokens; /* [stored][layers][per_layer][width] */
    const float *scales;  /* [stored][layers][per_layer] */
    size_t stored;
    const int64_t *rows; /* [total] */
    size_t total;
    float *scores;        /* [total] */
    float *contributions; /* [total][layers], or NULL */
} linkedout_kernel_task;

enum { LINKEDOUT_KERNEL_LARGEST = 127 * 256 + 127, LINKEDOUT_KERNEL_MOST = (1 << 24) - 1 };

/* 0; -1: no memory; -2: digits are too large; -3: a row is not stored. */
int linkedout_kernel_score(const linkedout_kernel_task *task);

/* What computes: "AVX2", "NEON", …. LINKEDOUT_SCORER in the environment names another one that is here. */
const char *linkedout_kernel_path(void);

#ifdef __cplusplus
}
#endif

#endif
