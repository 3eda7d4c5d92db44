/* Scores of stored layer tokens; `scorer.py` says what is computed and has the same in NumPy. And, for Python alone, the
 * equations of `taste.py`, whose twin there differs by rounding: the steps of LAPACK, without the time that starting it
 * takes.
 *
 * Products of whole numbers are added up in int32, which is exact in any order, and so many instructions may be used for
 * them as there are. What follows in float32 is one piece of code with one order for all of them. So each path gives
 * the same bits, if no compiler joins a product and a sum (-ffp-contract=off) or reorders them (-ffast-math).
 *
 * tests/kernel compiles this file without Python for other processors and with sanitizers: LINKEDOUT_WITHOUT_PYTHON.
 */
#ifndef LINKEDOUT_WITHOUT_PYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "floats are computed otherwise here than in NumPy: without the extension NumPy is used"
#endif
#if defined(__clang__) || defined(_MSC_VER)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#ifdef __OPTIMIZE__
#define INLINE __attribute__((always_inline)) static inline
#else /* compilers that do not optimize refuse to inline what is called through a pointer */
#define INLINE static inline
#endif
#if defined(__x86_64__)
#define HAVE_X86
#include <immintrin.h>
#elif defined(__aarch64__)
#define HAVE_ARM
#include <arm_neon.h>
/* Before 17 clang shows these instructions only where the whole file may use them. */
#if !defined(__clang__) || __clang_major__ >= 17 || defined(__ARM_FEATURE_DOTPROD)
#define HAVE_DOTPROD
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif
#endif
#else
#define PREFETCH(address) ((void)(address))
#define INLINE static inline
#endif

/* A user's query. Of each token, digits add up to at most 2^24 - 1, so sums of products fit into int32. */
typedef struct {
    const int16_t *digits; /* [layers * per_layer][width] */
    const float *units;    /* [layers * per_layer], what a digit is worth */
    const float *offsets;  /* [layers] */
    const int8_t *high;    /* the same digits as 256 * high + low; NULL where the path does not want them */
    const int8_t *low;
    size_t layers, per_layer, width;
} Query;

/* `total` rows of `stored` videos are to be scored. */
typedef struct {
    Query query;
    const int8_t *tokens;   /* [stored][layers][per_layer][width] */
    const float *scales;    /* [stored][layers][per_layer] */
    const int64_t *rows;    /* [total] */
    float *scores;          /* [total] */
    float *contributions;   /* [total][layers], or NULL */
    int32_t *sums;          /* [layers * per_layer], to work in */
    float *products;        /* the same */
    size_t stored, total;
} Task;

enum { LARGEST = 127 * 256 + 127, MOST = (1 << 24) - 1, AHEAD = 4, LINE = 64 };

/* Sums of products of one video's tokens. */
typedef void (*Dots)(const int8_t *tokens, const Query *query, int32_t *out);

INLINE int32_t rest_of_dot(const int8_t *token, const int16_t *digits, size_t from, size_t width) {
    int32_t sum = 0;
    for (size_t d = from; d < width; d++) sum += (int32_t)token[d] * digits[d];
    return sum;
}

/* Add the products of all entries from `full` on. */
INLINE void add_rest(const int8_t *tokens, const Query *query, size_t full, int32_t *out) {
    for (size_t n = 0; n < query->layers * query->per_layer; n++)
        out[n] += rest_of_dot(tokens + n * query->width, query->digits + n * query->width, full, query->width);
}

/* Do the task; returns -1, or the position of a row that is out of bounds. Compiled for each path by itself.
 *
 * Others may write tokens and scales meanwhile: scores are then any numbers. */
INLINE ptrdiff_t do_rows(const Task *task, const Dots dots) {
    const Query query = task->query;
    const size_t count = query.layers * query.per_layer, size = count * query.width;
    int32_t *const sums = task->sums;
    float *const products = task->products;
    for (size_t n = 0; n < task->total; n++) {
        const uint64_t row = (uint64_t)task->rows[n];
        if (row >= task->stored) return (ptrdiff_t)n;
        const uint64_t next = n + AHEAD < task->total ? (uint64_t)task->rows[n + AHEAD] : task->stored;
        if (next < task->stored) {
            for (size_t d = 0; d < size; d += LINE) PREFETCH(task->tokens + (size_t)next * size + d);
            PREFETCH(task->scales + (size_t)next * count);
        }
        dots(task->tokens + (size_t)row * size, &query, sums);
        const float *const scales = task->scales + (size_t)row * count;
        for (size_t k = 0; k < count; k++) products[k] = (float)sums[k] * query.units[k] * scales[k];
        float score = 0;
        for (size_t layer = 0; layer < query.layers; layer++) {
            const float *const of_layer = products + layer * query.per_layer;
            float sum = of_layer[0];
            for (size_t k = 1; k < query.per_layer; k++) sum += of_layer[k];
            sum -= query.offsets[layer];
            if (task->contributions != NULL) task->contributions[n * query.layers + layer] = sum;
            score = layer ? score + sum : sum;
        }
        task->scores[n] = score;
    }
    return -1;
}

INLINE void dots_plain(const int8_t *tokens, const Query *query, int32_t *out) {
    const size_t width = query->width;
    for (size_t n = 0; n < query->layers * query->per_layer; n++)
        out[n] = rest_of_dot(tokens + n * width, query->digits + n * width, 0, width);
}

static ptrdiff_t rows_plain(const Task *task) { return do_rows(task, dots_plain); }

#ifdef HAVE_X86
#define AVX2 __attribute__((target("avx2")))

/* Four sums at once take hardly more steps than one. */
AVX2 INLINE void sums_of_8(const __m256i v[4], int32_t out[4]) {
    __m256i x = _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
    _mm_storeu_si128((__m128i *)out, _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

AVX2 INLINE int32_t sum_of_8(__m256i v) {
    __m128i x = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

/* `sum` and 16 more products. */
AVX2 INLINE __m256i more_avx2(__m256i sum, const int8_t *token, const int16_t *digits) {
    __m256i t = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)token));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(t, _mm256_loadu_si256((const __m256i *)digits)));
}

/* Four tokens take turns, so that no sum has to wait for itself. */
AVX2 INLINE void dots_avx2(const int8_t *tokens, const Query *query, int32_t *out) {
    const size_t width = query->width, full = width & ~(size_t)15, count = query->layers * query->per_layer;
    size_t n = 0;
    for (; n + 4 <= count; n += 4) {
        const int8_t *token = tokens + n * width;
        const int16_t *digits = query->digits + n * width;
        __m256i sums[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
        for (size_t d = 0; d < full; d += 16) {
            sums[0] = more_avx2(sums[0], token + d, digits + d);
            sums[1] = more_avx2(sums[1], token + width + d, digits + width + d);
            sums[2] = more_avx2(sums[2], token + 2 * width + d, digits + 2 * width + d);
            sums[3] = more_avx2(sums[3], token + 3 * width + d, digits + 3 * width + d);
        }
        sums_of_8(sums, out + n);
    }
    for (; n < count; n++) {
        __m256i sum = _mm256_setzero_si256();
        for (size_t d = 0; d < full; d += 16) sum = more_avx2(sum, tokens + n * width + d, query->digits + n * width + d);
        out[n] = sum_of_8(sum);
    }
    if (full < width) add_rest(tokens, query, full, out);
}

AVX2 static ptrdiff_t rows_avx2(const Task *task) { return do_rows(task, dots_avx2); }

#define VNNI __attribute__((target("avx2,avx512f,avx512bw,avx512vnni")))

/* `sum` and 32 more products. */
VNNI INLINE __m512i more_vnni(__m512i sum, const int8_t *token, const int16_t *digits) {
    __m512i t = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)token));
    return _mm512_dpwssd_epi32(sum, t, _mm512_loadu_si512(digits));
}

VNNI INLINE __m256i halves_of_16(__m512i v) {
    return _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
}

VNNI INLINE void dots_vnni(const int8_t *tokens, const Query *query, int32_t *out) {
    const size_t width = query->width, full = width & ~(size_t)31, count = query->layers * query->per_layer;
    size_t n = 0;
    for (; n + 4 <= count; n += 4) {
        const int8_t *token = tokens + n * width;
        const int16_t *digits = query->digits + n * width;
        __m512i a = _mm512_setzero_si512(), b = a, c = a, e = a;
        for (size_t d = 0; d < full; d += 32) {
            a = more_vnni(a, token + d, digits + d);
            b = more_vnni(b, token + width + d, digits + width + d);
            c = more_vnni(c, token + 2 * width + d, digits + 2 * width + d);
            e = more_vnni(e, token + 3 * width + d, digits + 3 * width + d);
        }
        const __m256i sums[4] = {halves_of_16(a), halves_of_16(b), halves_of_16(c), halves_of_16(e)};
        sums_of_8(sums, out + n);
    }
    for (; n < count; n++) {
        __m512i sum = _mm512_setzero_si512();
        for (size_t d = 0; d < full; d += 32) sum = more_vnni(sum, tokens + n * width + d, query->digits + n * width + d);
        out[n] = sum_of_8(halves_of_16(sum));
    }
    if (full < width) add_rest(tokens, query, full, out);
}

VNNI static ptrdiff_t rows_vnni(const Task *task) { return do_rows(task, dots_vnni); }

static int has_avx2(void) { return __builtin_cpu_supports("avx2") != 0; }

static int has_vnni(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

#ifdef HAVE_ARM
INLINE void dots_neon(const int8_t *tokens, const Query *query, int32_t *out) {
    const size_t width = query->width, full = width & ~(size_t)15;
    for (size_t n = 0; n < query->layers * query->per_layer; n++) {
        const int8_t *token = tokens + n * width;
        const int16_t *digits = query->digits + n * width;
        int32x4_t even = vdupq_n_s32(0), odd = vdupq_n_s32(0);
        for (size_t d = 0; d < full; d += 16) {
            int8x16_t t = vld1q_s8(token + d);
            int16x8_t t0 = vmovl_s8(vget_low_s8(t)), t1 = vmovl_high_s8(t);
            int16x8_t q0 = vld1q_s16(digits + d), q1 = vld1q_s16(digits + d + 8);
            even = vmlal_s16(even, vget_low_s16(t0), vget_low_s16(q0));
            odd = vmlal_high_s16(odd, t0, q0);
            even = vmlal_s16(even, vget_low_s16(t1), vget_low_s16(q1));
            odd = vmlal_high_s16(odd, t1, q1);
        }
        out[n] = vaddvq_s32(vaddq_s32(even, odd)) + rest_of_dot(token, digits, full, width);
    }
}

static ptrdiff_t rows_neon(const Task *task) { return do_rows(task, dots_neon); }

#ifdef HAVE_DOTPROD
#ifdef __ARM_FEATURE_DOTPROD
#define DOTPROD
#else
#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

DOTPROD INLINE void dots_dotprod(const int8_t *tokens, const Query *query, int32_t *out) {
    const size_t width = query->width, full = width & ~(size_t)15;
    for (size_t n = 0; n < query->layers * query->per_layer; n++) {
        const int8_t *token = tokens + n * width, *high = query->high + n * width, *low = query->low + n * width;
        int32x4_t highs = vdupq_n_s32(0), lows = vdupq_n_s32(0);
        for (size_t d = 0; d < full; d += 16) {
            int8x16_t t = vld1q_s8(token + d);
            highs = vdotq_s32(highs, t, vld1q_s8(high + d));
            lows = vdotq_s32(lows, t, vld1q_s8(low + d));
        }
        /* Unsigned, as the first part alone may not fit. */
        uint32_t sum = (uint32_t)vaddvq_s32(highs) * 256u + (uint32_t)vaddvq_s32(lows);
        out[n] = (int32_t)(sum + (uint32_t)rest_of_dot(token, query->digits + n * width, full, width));
    }
}

DOTPROD static ptrdiff_t rows_dotprod(const Task *task) { return do_rows(task, dots_dotprod); }

static int has_dotprod(void) {
#if defined(__ARM_FEATURE_DOTPROD)
    return 1;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) & (1ul << 20)) != 0; /* HWCAP_ASIMDDP */
#else
    return 0;
#endif
}
#endif
#endif

static int always(void) { return 1; }

typedef struct {
    const char *name;
    ptrdiff_t (*rows)(const Task *task);
    int (*is_here)(void);
    int splits; /* wants `high` and `low` */
} Path;

/* The best one first. */
static const Path paths[] = {
#ifdef HAVE_X86
    {"AVX512-VNNI", rows_vnni, has_vnni, 0},
    {"AVX2", rows_avx2, has_avx2, 0},
#endif
#ifdef HAVE_ARM
#ifdef HAVE_DOTPROD
    {"NEON-dotprod", rows_dotprod, has_dotprod, 1},
#endif
    {"NEON", rows_neon, always, 0},
#endif
    {"C", rows_plain, always, 0},
};
enum { PATHS = sizeof(paths) / sizeof(*paths) };

static const Path *find_path(const char *name) {
    for (size_t n = 0; n < PATHS; n++)
        if (strcmp(paths[n].name, name) == 0 && paths[n].is_here()) return &paths[n];
    return NULL;
}

/* Whether digits are so small that their sums fit. */
static int digits_fit(const int16_t *digits, size_t count, size_t width) {
    for (size_t n = 0; n < count; n++) {
        int64_t sum = 0;
        for (size_t d = 0; d < width; d++) {
            int32_t digit = digits[n * width + d];
            if (digit > LARGEST || digit < -LARGEST) return 0;
            sum += digit < 0 ? -digit : digit;
        }
        if (sum > MOST) return 0;
    }
    return 1;
}

/* Do a task without memory to work in. Returns as `do_rows`; -2 if there is none to be had. */
static ptrdiff_t score_rows(const Path *path, Task task) {
    const size_t count = task.query.layers * task.query.per_layer, size = count * task.query.width;
    task.sums = malloc(count * (sizeof(int32_t) + sizeof(float)) + (path->splits ? 2 * size : 0));
    if (task.sums == NULL) return -2;
    task.products = (float *)(task.sums + count);
    if (path->splits) {
        int8_t *high = (int8_t *)(task.products + count), *low = high + size;
        for (size_t d = 0; d < size; d++) {
            low[d] = (int8_t)((task.query.digits[d] + 32768 + 128) % 256 - 128);
            high[d] = (int8_t)((task.query.digits[d] - low[d]) / 256);
        }
        task.query.high = high;
        task.query.low = low;
    }
    const ptrdiff_t wrong = path->rows(&task);
    free(task.sums);
    return wrong;
}

#ifndef LINKEDOUT_WITHOUT_PYTHON

/* Solve one system, count rows of its matrix and right side; see `solve_with_numpy`. */
static void solve_system(double *rows, size_t count) {
    const size_t width = count + 1;
    for (size_t k = 0; k < count; k += 2) { /* two rows at a time: the others are read and written half as often */
        double *__restrict a = rows + k * width, *__restrict b = a + width;
        const double pivot = a[k] = sqrt(a[k]);
        for (size_t j = k + 1; j < width; j++) a[j] /= pivot;
        if (k + 1 == count) break;
        const double between = a[k + 1];
        for (size_t j = k + 1; j < width; j++) b[j] -= between * a[j];
        const double second = b[k + 1] = sqrt(b[k + 1]);
        for (size_t j = k + 2; j < width; j++) b[j] /= second;
        for (size_t i = k + 2; i < count; i++) {
            double *__restrict row = rows + i * width;
            const double of_a = a[i], of_b = b[i];
            for (size_t j = i; j < width; j++) row[j] = row[j] - of_a * a[j] - of_b * b[j];
        }
    }
    for (size_t k = count; k-- > 0;) {
        const double solved = rows[k * width + count] /= rows[k * width + k];
        for (size_t i = 0; i < k; i++) rows[i * width + count] -= rows[i * width + k] * solved;
    }
}

enum { DIGITS, UNITS, OFFSETS, TOKENS, SCALES, ROWS, SCORES, LAYERS, ARRAYS, SYSTEMS = ARRAYS };

static const struct {
    const char *name, *dtype, *codes;
    int ndim, itemsize, writable;
} wanted[ARRAYS + 1] = {
    {"digits", "int16", "h", 3, 2, 0}, {"units", "float32", "f", 2, 4, 0},   {"offsets", "float32", "f", 1, 4, 0},
    {"tokens", "int8", "b", 4, 1, 0},  {"scales", "float32", "f", 3, 4, 0},  {"rows", "int64", "lq", 1, 8, 0},
    {"scores", "float32", "f", 1, 4, 1}, {"layers", "float32", "f", 2, 4, 1}, {"systems", "float64", "d", 3, 8, 1},
};

/* A view of an array that is as it has to be; -1 and an exception otherwise. */
static int view_of(PyObject *array, int which, Py_buffer *view) {
    int flags = PyBUF_ND | PyBUF_FORMAT | (wanted[which].writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(array, view, flags | PyBUF_STRIDES) < 0) {
        view->obj = NULL;
        return -1;
    }
    const char *format = view->format == NULL ? "B" : view->format;
    if (*format == '=') format++; /* NumPy's mark of an array that is not aligned, which is said below */
    if (strlen(format) != 1 || strchr(wanted[which].codes, *format) == NULL || view->itemsize != wanted[which].itemsize)
        PyErr_Format(PyExc_TypeError, "%s: expected %s", wanted[which].name, wanted[which].dtype);
    else if (view->ndim != wanted[which].ndim)
        PyErr_Format(PyExc_ValueError, "%s: expected %d dimensions, got %d", wanted[which].name, wanted[which].ndim,
                     view->ndim);
    else if (!PyBuffer_IsContiguous(view, 'C'))
        PyErr_Format(PyExc_ValueError, "%s: expected a contiguous array", wanted[which].name);
    else if ((uintptr_t)view->buf % (uintptr_t)view->itemsize != 0)
        PyErr_Format(PyExc_ValueError, "%s: expected an aligned array", wanted[which].name);
    else
        return 0;
    return -1;
}

static int is_shaped(const Py_buffer *view, int which, Py_ssize_t a, Py_ssize_t b, Py_ssize_t c, Py_ssize_t d) {
    const Py_ssize_t shape[] = {a, b, c, d};
    for (int n = 0; n < wanted[which].ndim; n++)
        if (view->shape[n] != shape[n]) {
            PyErr_Format(PyExc_ValueError, "%s: expected %zd along dimension %d, got %zd", wanted[which].name, shape[n],
                         n, view->shape[n]);
            return 0;
        }
    return 1;
}

static PyObject *score_views(const Path *path, Py_buffer *views, int split) {
    const Py_ssize_t *shape = views[DIGITS].shape, layers = shape[0], per_layer = shape[1], width = shape[2];
    const Py_ssize_t stored = views[TOKENS].shape[0], total = views[ROWS].shape[0];
    if (layers < 1 || per_layer < 1 || width < 1) {
        PyErr_SetString(PyExc_ValueError, "digits: expected at least one layer, token and entry");
        return NULL;
    }
    if (!is_shaped(&views[UNITS], UNITS, layers, per_layer, 0, 0) || !is_shaped(&views[OFFSETS], OFFSETS, layers, 0, 0, 0) ||
        !is_shaped(&views[TOKENS], TOKENS, stored, layers, per_layer, width) ||
        !is_shaped(&views[SCALES], SCALES, stored, layers, per_layer, 0) ||
        !is_shaped(&views[SCORES], SCORES, total, 0, 0, 0) || (split && !is_shaped(&views[LAYERS], LAYERS, total, layers, 0, 0)))
        return NULL;
    if (!digits_fit(views[DIGITS].buf, (size_t)(layers * per_layer), (size_t)width)) {
        PyErr_SetString(PyExc_ValueError, "digits: too large, sums would overflow");
        return NULL;
    }
    const Query query = {.digits = views[DIGITS].buf,    .units = views[UNITS].buf, .offsets = views[OFFSETS].buf,
                         .layers = (size_t)layers,       .per_layer = (size_t)per_layer, .width = (size_t)width};
    const Task task = {.query = query,
                       .tokens = views[TOKENS].buf,
                       .scales = views[SCALES].buf,
                       .rows = views[ROWS].buf,
                       .scores = views[SCORES].buf,
                       .contributions = split ? views[LAYERS].buf : NULL,
                       .stored = (size_t)stored,
                       .total = (size_t)total};
    ptrdiff_t wrong;
    Py_BEGIN_ALLOW_THREADS
    wrong = score_rows(path, task);
    Py_END_ALLOW_THREADS
    if (wrong == -2) return PyErr_NoMemory();
    if (wrong >= 0) {
        PyErr_Format(PyExc_IndexError, "rows: number %zd is not one of the %zd that are stored", (Py_ssize_t)wrong, stored);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *score(PyObject *module, PyObject *args) {
    (void)module;
    const char *name;
    PyObject *arrays[ARRAYS];
    if (!PyArg_ParseTuple(args, "sOOOOOOOO:score", &name, &arrays[0], &arrays[1], &arrays[2], &arrays[3], &arrays[4],
                          &arrays[5], &arrays[6], &arrays[7]))
        return NULL;
    const Path *path = find_path(name);
    if (path == NULL) return PyErr_Format(PyExc_ValueError, "path: this processor has no %s", name);
    const int split = arrays[LAYERS] != Py_None;
    Py_buffer views[ARRAYS] = {{0}};
    PyObject *result = NULL;
    int n = 0;
    while (n < ARRAYS - !split && view_of(arrays[n], n, &views[n]) == 0) n++;
    if (n == ARRAYS - !split) result = score_views(path, views, split);
    for (n = 0; n < ARRAYS; n++)
        if (views[n].obj != NULL) PyBuffer_Release(&views[n]);
    return result;
}

static PyObject *solve(PyObject *module, PyObject *array) {
    (void)module;
    Py_buffer view = {0};
    if (view_of(array, SYSTEMS, &view) == 0 && view.shape[2] != view.shape[1] + 1)
        PyErr_SetString(PyExc_ValueError, "systems: expected one column more than rows");
    if (!PyErr_Occurred()) {
        const size_t systems = (size_t)view.shape[0], count = (size_t)view.shape[1];
        Py_BEGIN_ALLOW_THREADS
        for (size_t n = 0; n < systems; n++) solve_system((double *)view.buf + n * count * (count + 1), count);
        Py_END_ALLOW_THREADS
    }
    if (view.obj != NULL) PyBuffer_Release(&view);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"score", score, METH_VARARGS,
     "score(path, digits, units, offsets, tokens, scales, rows, scores, layers)\n\n"
     "The same as `linkedout_edge.rank.scorer.score_with_numpy`, by a path of PATHS."},
    {"solve", solve, METH_O, "solve(systems)\n\nThe same as `linkedout_edge.rank.taste.solve_with_numpy`."},
    {NULL, NULL, 0, NULL},
};

int add_row_index(PyObject *module); /* _row_index.c */

static int fill_module(PyObject *module) {
    PyObject *names = PyList_New(0);
    int failed = names == NULL;
    for (size_t n = 0; n < PATHS && !failed; n++) {
        if (!paths[n].is_here()) continue;
        PyObject *name = PyUnicode_FromString(paths[n].name);
        failed = name == NULL || PyList_Append(names, name) < 0;
        Py_XDECREF(name);
    }
    PyObject *tuple = failed ? NULL : PyList_AsTuple(names);
    failed = tuple == NULL || PyObject_SetAttrString(module, "PATHS", tuple) < 0;
    Py_XDECREF(tuple);
    Py_XDECREF(names);
    return failed ? -1 : add_row_index(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill_module}, {0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "linkedout_edge._kernel", NULL, 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }
#endif
