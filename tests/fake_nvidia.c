/* A driver of NVIDIA's that decodes nothing: FFmpeg talks to it as to a GPU, and gets grey pictures, each a shade lighter
 * than the one before. FAKE_NVIDIA=refuse creates no decoder, FAKE_NVIDIA=fail decodes no picture. Built as both
 * libcuda.so.1 and libnvcuvid.so.1 by test_decode_hardware.py, which adds what is missing here as functions that do
 * nothing. "Device memory" is ordinary memory. */
#include <stdlib.h>
#include <string.h>

typedef unsigned long long Pointer;

static int is(const char *how) { return getenv("FAKE_NVIDIA") && !strcmp(getenv("FAKE_NVIDIA"), how); }

int cuGetErrorName(int error, const char **name) { *name = "FAKE"; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "as asked for"; return 0; }
int cuDeviceGet(int *device, int number) { *device = 0; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 256; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = (void *)16; return 0; }
int cuCtxPopCurrent_v2(void **context) { if (context) *context = (void *)16; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)16; return 0; }
int cuMemAlloc_v2(Pointer *memory, size_t size) { *memory = (Pointer)calloc(1, size); return 0; }
int cuMemFree_v2(Pointer memory) { free((void *)memory); return 0; }

typedef struct { size_t x, y; int type; const void *host; Pointer device; void *array; size_t pitch; } Side;
typedef struct { Side from, to; size_t width, height; } Copy;

static char *start(const Side *side)
{
    return (side->type == 1 ? (char *)side->host : (char *)side->device) + side->y * side->pitch + side->x;
}

int cuMemcpy2DAsync_v2(const Copy *copy, void *stream)
{
    for (size_t y = 0; y < copy->height; y++)
        memcpy(start(&copy->to) + y * copy->to.pitch, start(&copy->from) + y * copy->from.pitch, copy->width);
    return 0;
}

typedef struct { unsigned long width, height; } Wanted; /* the beginning of CUVIDDECODECREATEINFO */
typedef struct { size_t pitch, luma; int count; unsigned char *pictures[64]; } Decoder;

int cuvidCreateDecoder(Decoder **made, const Wanted *wanted)
{
    if (is("refuse"))
        return 1;
    *made = calloc(1, sizeof **made);
    (*made)->pitch = (wanted->width * 2 + 255) & ~255UL;
    (*made)->luma = (*made)->pitch * wanted->height;
    return 0;
}

int cuvidDestroyDecoder(Decoder *decoder)
{
    for (int i = 0; i < 64; i++)
        free(decoder->pictures[i]);
    free(decoder);
    return 0;
}

int cuvidDecodePicture(Decoder *decoder, const int *parameters) /* width, height, which picture, ... */
{
    unsigned char **picture = &decoder->pictures[parameters[2]];
    if (!*picture)
        *picture = malloc(decoder->luma * 2);
    memset(*picture, 40 + decoder->count++, decoder->luma);
    memset(*picture + decoder->luma, 128, decoder->luma);
    return is("fail");
}

int cuvidMapVideoFrame64(Decoder *decoder, int which, Pointer *memory, unsigned *pitch, void *parameters)
{
    *memory = (Pointer)decoder->pictures[which];
    *pitch = decoder->pitch;
    return 0;
}
