/* linkedout-edge in C: ranks the videos that lie on a device by what its owner has watched.
 *
 *     linkedout_load_options how = LINKEDOUT_LOAD_OPTIONS_INIT;
 *     how.bundle = linkedout_string("bundles/base");
 *     linkedout_recommender *rec;
 *     if (linkedout_load(&how, &rec) != LINKEDOUT_OK) puts(linkedout_last_error());
 *
 * docs/bindings-cpp.md says how it all fits together; linkedout_edge.hpp wraps it for C++.
 *
 * Rules that hold for every function
 * - It returns a status. LINKEDOUT_OK is 0; after anything else `linkedout_last_error` says what was wrong and how to
 *   fix it, and nothing has changed, and nothing was written through any pointer but where a function says so.
 * - Nothing throws, exits or prints. Nothing opens a socket. Nothing is written to disk.
 * - Any function may be called from any thread, also on one handle at the same time.
 * - A handle is a number in a pointer's clothes: it is never dereferenced, and none is given out twice. NULL, a closed
 *   handle or one of another kind is an error. Closing one that another thread is using lets that call finish first.
 *   Each handle is closed by itself, in any order; those made from it go on working.
 * - Structs begin with `struct_size`: set them from their _INIT macro and change what you need.
 * - Text is UTF-8. Text that is given back is copied into your buffer: pass NULL and 0 to learn its length first
 *   (without the final NUL, which is written where there is room for it); too small a buffer is
 *   LINKEDOUT_BUFFER_TOO_SMALL, and `*length` is set then too. An id, title or content has at most 65,536 characters.
 * - Features are what is kept of a video: `linkedout_info.features_size` bytes (816 with the built-in bundle), int8
 *   tokens [L][M][D], then float scales [L][M], little endian. Keep them where you like; they are interchangeable
 *   within one token space, between machines, languages and precisions.
 */
#ifndef LINKEDOUT_EDGE_H
#define LINKEDOUT_EDGE_H

#include <stddef.h>
#include <stdint.h>

#define LINKEDOUT_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ---------------------------------------------------------------------------------------------------- */

typedef int32_t linkedout_status;
enum {
    LINKEDOUT_OK = 0,
    LINKEDOUT_ARGUMENT = 1,           /* a value that makes no sense; NULL where something is needed */
    LINKEDOUT_CLOSED = 2,             /* the handle was closed, or is of another kind */
    LINKEDOUT_BUNDLE_NOT_FOUND = 3,   /* there is no folder of that name */
    LINKEDOUT_BUNDLE_CORRUPT = 4,     /* its files are not what its manifest says */
    LINKEDOUT_BUNDLE_VERSION = 5,     /* of a format that this version does not read */
    LINKEDOUT_BACKEND = 6,            /* the inference library failed, or scores are no numbers */
    LINKEDOUT_DEVICE = 7,             /* this CPU would compute the graph wrongly */
    LINKEDOUT_MISSING_DEPENDENCY = 8, /* ONNX Runtime cannot be loaded, or the recommender was loaded without it */
    LINKEDOUT_PACK = 9,               /* not a feature pack or saved history, or a damaged one */
    LINKEDOUT_TOKEN_SPACE = 10,       /* made by another model: its features mean something else */
    LINKEDOUT_NOT_FOUND = 11,         /* no video of that id */
    LINKEDOUT_INVALID_FRAMES = 12,    /* not uint8 [F, H, W, 3] RGB */
    LINKEDOUT_BUFFER_TOO_SMALL = 13,  /* nothing was written, but the size that is needed */
    LINKEDOUT_OUT_OF_MEMORY = 14,     /* nothing has changed */
    LINKEDOUT_INTERNAL = 15           /* a bug of ours: please report it */
};

/* What was wrong with this thread's latest call that failed; "" before the first. Valid until its next call fails. */
LINKEDOUT_API const char *linkedout_last_error(void);

/* "ok", "argument", "not_found", …: stable, for programs; "unknown" for any other number. */
LINKEDOUT_API const char *linkedout_status_name(linkedout_status status);

/* Version of this library, such as "0.1.0". */
LINKEDOUT_API const char *linkedout_version(void);

/* ---- Text and bytes -------------------------------------------------------------------------------------------- */

#define LINKEDOUT_UP_TO_NUL ((size_t)-1)

/* UTF-8. `data` NULL: none. `length` in bytes, or LINKEDOUT_UP_TO_NUL. It is copied. */
typedef struct {
    const char *data;
    size_t length;
} linkedout_text;

static inline linkedout_text linkedout_string(const char *up_to_nul) {
    linkedout_text text;
    text.data = up_to_nul;
    text.length = LINKEDOUT_UP_TO_NUL;
    return text;
}

/* Bytes that the library made: a feature pack, a saved history. */
typedef struct linkedout_bytes linkedout_bytes;

/* `*data` is valid until the handle is closed. */
LINKEDOUT_API linkedout_status linkedout_bytes_get(const linkedout_bytes *bytes, const void **data, size_t *size);
LINKEDOUT_API linkedout_status linkedout_bytes_close(linkedout_bytes *bytes);

/* ---- The recommender: an open bundle --------------------------------------------------------------------------- */

typedef struct linkedout_recommender linkedout_recommender;

typedef struct {
    size_t struct_size;
    linkedout_text bundle;      /* a bundle's folder */
    linkedout_text precision;   /* which of its precisions, such as "int8"; none: its first */
    linkedout_text onnxruntime; /* path of ONNX Runtime's library, 1.20 or newer; none: the system's search path */
    int32_t threads;            /* of the encoder; 0: as many as the process may use */
    int32_t without_encoder;    /* 1: do not load ONNX Runtime; all but linkedout_encode works */
} linkedout_load_options;
#define LINKEDOUT_LOAD_OPTIONS_INIT {sizeof(linkedout_load_options), {NULL, 0}, {NULL, 0}, {NULL, 0}, 0, 0}

/* Open and check a bundle: sizes, SHA-256 and paths of its files, and the graph's inputs and outputs. Sets
 * ORT_DISABLE_TELEMETRY=1 in the environment before ONNX Runtime is loaded, so that it sends nothing. */
LINKEDOUT_API linkedout_status linkedout_load(const linkedout_load_options *options,
                                              linkedout_recommender **recommender);
LINKEDOUT_API linkedout_status linkedout_recommender_close(linkedout_recommender *recommender);

typedef struct {
    size_t struct_size;
    int32_t frames;           /* F, frames that the encoder takes of a video */
    int32_t frame_size;       /* H and W */
    int32_t title_tokens;     /* T, ids of a title that it reads */
    int32_t layers;           /* L */
    int32_t tokens_per_layer; /* M */
    int32_t token_width;      /* D */
    int32_t threads;          /* of the encoder; 0 without one */
    int32_t has_encoder;      /* 0 or 1 */
    size_t features_size;     /* bytes kept of a video: L * M * (D + 4) */
} linkedout_info;
#define LINKEDOUT_INFO_INIT {sizeof(linkedout_info), 0, 0, 0, 0, 0, 0, 0, 0, 0}

LINKEDOUT_API linkedout_status linkedout_recommender_info(const linkedout_recommender *recommender,
                                                          linkedout_info *info);

enum {
    LINKEDOUT_INFO_BUNDLE = 0,      /* name of the bundle */
    LINKEDOUT_INFO_PRECISION = 1,   /* which of its precisions */
    LINKEDOUT_INFO_TOKEN_SPACE = 2, /* features are interchangeable within one */
    LINKEDOUT_INFO_BACKEND = 3,     /* "onnxruntime 1.32.0"; "" without the encoder */
    LINKEDOUT_INFO_SCORER = 4,      /* what computes scores, such as "AVX2 kernel" */
    LINKEDOUT_INFO_LAYER_NAME = 5,  /* of layer `index` */
    LINKEDOUT_INFO_LICENSE = 6,     /* of the weights */
    LINKEDOUT_INFO_PROVENANCE = 7   /* what the weights were trained on */
};

/* `which` is one of LINKEDOUT_INFO_…; `index` is 0, but for LINKEDOUT_INFO_LAYER_NAME. */
LINKEDOUT_API linkedout_status linkedout_recommender_text(const linkedout_recommender *recommender, int32_t which,
                                                          size_t index, char *text, size_t capacity, size_t *length);

/* ---- Encoding -------------------------------------------------------------------------------------------------- */

/* Frames of a video in order of time, upright, at any size: uint8 [count][height][width][3], RGB, without gaps. */
typedef struct {
    size_t struct_size;
    const uint8_t *data;
    size_t size; /* bytes at `data`: count * height * width * channels, or the frames are refused */
    int64_t count;
    int64_t height;
    int64_t width;
    int64_t channels; /* 3 */
} linkedout_frames;
#define LINKEDOUT_FRAMES_INIT {sizeof(linkedout_frames), NULL, 0, 0, 0, 0, 3}

/* Which of `total` frames the encoder takes: rising indices, min(total, F) of them, also in `*count`. An app that
 * decodes only these may hand in only these. `indices` has room for `capacity`; NULL and 0: only the count. */
LINKEDOUT_API linkedout_status linkedout_choose_frames(const linkedout_recommender *recommender, int64_t total,
                                                       int64_t *indices, size_t capacity, size_t *count);

/* Choose and resize frames as linkedout_encode does: uint8 [*count][frame_size][frame_size][3] into `prepared`. */
LINKEDOUT_API linkedout_status linkedout_prepare_frames(const linkedout_recommender *recommender,
                                                        const linkedout_frames *frames, uint8_t *prepared,
                                                        size_t capacity, size_t *count);

/* All token ids of a title (the encoder reads the first title_tokens). Half a character counts as "?". */
LINKEDOUT_API linkedout_status linkedout_tokenize(const linkedout_recommender *recommender, linkedout_text title,
                                                  int32_t *ids, size_t capacity, size_t *count);

/* Encode a video: features_size bytes into `features`. `size` has to be features_size. */
LINKEDOUT_API linkedout_status linkedout_encode(const linkedout_recommender *recommender,
                                                const linkedout_frames *frames, linkedout_text title, void *features,
                                                size_t size);

/* ---- The store: videos that can be ranked, in memory ------------------------------------------------------------ */

typedef struct linkedout_store linkedout_store;

/* A video as it is kept. */
typedef struct {
    size_t struct_size;
    linkedout_text id;      /* not empty */
    linkedout_text title;   /* what it was encoded with; none: none */
    linkedout_text content; /* a hash of what it was made of, if you have one; none: "" */
    const void *features;
    size_t features_size;
} linkedout_video;
#define LINKEDOUT_VIDEO_INIT {sizeof(linkedout_video), {NULL, 0}, {NULL, 0}, {NULL, 0}, NULL, 0}

enum { LINKEDOUT_TEXT_ID = 0, LINKEDOUT_TEXT_TITLE = 1, LINKEDOUT_TEXT_CONTENT = 2 };

/* An empty store. The average video, which scores 0, follows what stores hold (and what a history holds). */
LINKEDOUT_API linkedout_status linkedout_store_create(const linkedout_recommender *recommender,
                                                      linkedout_store **store);
LINKEDOUT_API linkedout_status linkedout_store_close(linkedout_store *store);

/* Add a video, or replace the one of the same id where it stands. */
LINKEDOUT_API linkedout_status linkedout_store_put(linkedout_store *store, const linkedout_video *video);

/* Remove videos; `*removed`, if not NULL: how many of the ids were there. Positions behind them move up. */
LINKEDOUT_API linkedout_status linkedout_store_remove(linkedout_store *store, const linkedout_text *ids, size_t count,
                                                      size_t *removed);

LINKEDOUT_API linkedout_status linkedout_store_count(const linkedout_store *store, size_t *count);

/* Position of an id, from 0 in order of arrival; LINKEDOUT_NOT_FOUND if it is not there. */
LINKEDOUT_API linkedout_status linkedout_store_find(const linkedout_store *store, linkedout_text id, size_t *position);

/* Id, title or content of a video (LINKEDOUT_TEXT_…). No title: `*length` is 0. */
LINKEDOUT_API linkedout_status linkedout_store_text(const linkedout_store *store, size_t position, int32_t which,
                                                    char *text, size_t capacity, size_t *length);

/* Features of a video; `size` has to be features_size. */
LINKEDOUT_API linkedout_status linkedout_store_features(const linkedout_store *store, size_t position, void *features,
                                                        size_t size);

/* Take over all videos of a feature pack (docs/store.md), the same file that Python writes. All of it is checked first.
 * `*count`, if not NULL: how many. */
LINKEDOUT_API linkedout_status linkedout_store_read_pack(linkedout_store *store, const void *data, size_t size,
                                                         size_t *count);

/* Make a feature pack of the ids, or with NULL and 0 of all. LINKEDOUT_NOT_FOUND if one is not there. */
LINKEDOUT_API linkedout_status linkedout_store_write_pack(const linkedout_store *store, const linkedout_text *ids,
                                                          size_t count, linkedout_bytes **pack);

/* ---- The history: what was watched, and the features of it ------------------------------------------------------ */

typedef struct linkedout_history linkedout_history;

enum { LINKEDOUT_LIKED_UNKNOWN = -1, LINKEDOUT_DISLIKED = 0, LINKEDOUT_LIKED = 1 };
#define LINKEDOUT_MAX_EVENTS 256 /* of a history: with one more the oldest leaves */

/* One watched video. */
typedef struct {
    size_t struct_size;
    const linkedout_video *video; /* features NULL: those that the history has of the id, or LINKEDOUT_NOT_FOUND */
    double watched;               /* fraction, 0 to 1; a low one is a skip */
    int32_t liked;                /* LINKEDOUT_LIKED_UNKNOWN, LINKEDOUT_DISLIKED or LINKEDOUT_LIKED */
    int32_t has_at;               /* 0: of unknown age */
    double at;                    /* Unix seconds; in the future counts as now */
} linkedout_event;
#define LINKEDOUT_EVENT_INIT {sizeof(linkedout_event), NULL, 1.0, LINKEDOUT_LIKED_UNKNOWN, 0, 0.0}

LINKEDOUT_API linkedout_status linkedout_history_create(const linkedout_recommender *recommender,
                                                        linkedout_history **history);
LINKEDOUT_API linkedout_status linkedout_history_close(linkedout_history *history);

/* Note that a video was watched, after all others. Its features are copied: the history outlives stores and files. */
LINKEDOUT_API linkedout_status linkedout_history_add(linkedout_history *history, const linkedout_event *event);

/* Remove the events of a video, and what is kept of it. `*removed`, if not NULL: how many events. */
LINKEDOUT_API linkedout_status linkedout_history_forget(linkedout_history *history, linkedout_text id, size_t *removed);

/* Remove all events since a moment (Unix seconds). Of those of unknown age: what was added after one that goes, or to
 * this handle since then. */
LINKEDOUT_API linkedout_status linkedout_history_forget_since(linkedout_history *history, double at, size_t *removed);

LINKEDOUT_API linkedout_status linkedout_history_clear(linkedout_history *history, size_t *removed);

LINKEDOUT_API linkedout_status linkedout_history_count(const linkedout_history *history, size_t *events);

/* Watched, liked and at of an event, 0 being the oldest; `video` becomes NULL: the next two have texts and features. */
LINKEDOUT_API linkedout_status linkedout_history_event(const linkedout_history *history, size_t position,
                                                       linkedout_event *event);
LINKEDOUT_API linkedout_status linkedout_history_text(const linkedout_history *history, size_t position, int32_t which,
                                                      char *text, size_t capacity, size_t *length);
LINKEDOUT_API linkedout_status linkedout_history_features(const linkedout_history *history, size_t position,
                                                          void *features, size_t size);

/* A saved history as bytes, and back (docs/bindings-cpp.md has the format, the same in every language). */
LINKEDOUT_API linkedout_status linkedout_history_save(const linkedout_history *history, linkedout_bytes **saved);
LINKEDOUT_API linkedout_status linkedout_history_load(const linkedout_recommender *recommender, const void *data,
                                                      size_t size, linkedout_history **history);

/* ---- Ranking --------------------------------------------------------------------------------------------------- */

typedef struct linkedout_ranking linkedout_ranking;

#define LINKEDOUT_ALL (-1)

typedef struct {
    size_t struct_size;
    int64_t top_k;                   /* give only so many, from 1 on; LINKEDOUT_ALL: all */
    double diversity;                /* 0 to 1: how much the best 200 are reordered so that neighbors differ */
    double explore;                  /* 0 to 1: how much it counts that little is known of a video */
    int32_t exclude_watched;         /* 1: leave out candidates that are in the history */
    int32_t fold_duplicates;         /* 1: of near-identical videos only the best placed one */
    const double *prior;             /* what you know besides content, standardized and added; NaN: unknown */
    size_t prior_count;              /* as many as candidates, or as prior_ids */
    const linkedout_text *prior_ids; /* whose values these are; NULL: the candidates' as given */
    double prior_weight;             /* how much one standard deviation of it counts */
    double now;                      /* Unix seconds that ages are taken from; 0: the present hour */
} linkedout_rank_options;
#define LINKEDOUT_RANK_OPTIONS_INIT \
    {sizeof(linkedout_rank_options), LINKEDOUT_ALL, 0.0, 0.0, 0, 0, NULL, 0, NULL, 1.0, 0.0}

enum {
    LINKEDOUT_SOURCE_CONTENT = 0,    /* scored by what is in it, and prior and explore */
    LINKEDOUT_SOURCE_COLD_START = 1, /* nothing is known to be liked: the list begins with videos that differ */
    LINKEDOUT_SOURCE_PRIOR = 2       /* nothing was watched: the prior alone decided */
};

/* Rank videos of a store by what was watched.
 *
 * history     NULL: nothing was watched. Its latest 192 events count.
 * candidates  `count` ids; one that comes twice counts once; one that is not in the store is among the failed.
 *             NULL and 0: all videos of the store that were not watched.
 * options     NULL: the defaults.
 *
 * The average video follows what the store holds, and what the history holds besides. Ranking changes neither. */
LINKEDOUT_API linkedout_status linkedout_rank(const linkedout_recommender *recommender, const linkedout_store *store,
                                              const linkedout_history *history, const linkedout_text *candidates,
                                              size_t count, const linkedout_rank_options *options,
                                              linkedout_ranking **ranking);
LINKEDOUT_API linkedout_status linkedout_ranking_close(linkedout_ranking *ranking);

typedef struct {
    size_t struct_size;
    size_t places; /* ranked videos */
    size_t failed; /* candidates that could not be ranked */
    size_t events; /* N, events that counted */
    size_t layers; /* L */
} linkedout_ranking_size;
#define LINKEDOUT_RANKING_SIZE_INIT {sizeof(linkedout_ranking_size), 0, 0, 0, 0}

LINKEDOUT_API linkedout_status linkedout_ranking_sizes(const linkedout_ranking *ranking, linkedout_ranking_size *sizes);

/* Places `first` to `first + count - 1`, 0 being the best. Each array has room for `count`, `layers` for count * L; any
 * may be NULL.
 *
 * positions  where the id stands in `candidates` as given; of a ranking of the whole store: where it stood in the store
 * scores     in standard deviations of the calibration set; the average video has 0
 * sources    LINKEDOUT_SOURCE_…
 * layers     what each layer contributes; they sum to the score, less what prior and explore added */
LINKEDOUT_API linkedout_status linkedout_ranking_places(const linkedout_ranking *ranking, size_t first, size_t count,
                                                        int64_t *positions, float *scores, int32_t *sources,
                                                        float *layers);

/* Id of the video at a place. */
LINKEDOUT_API linkedout_status linkedout_ranking_id(const linkedout_ranking *ranking, size_t place, char *text,
                                                    size_t capacity, size_t *length);

/* A candidate that could not be ranked: where it stands in `candidates`, why (LINKEDOUT_NOT_FOUND), and its id.
 * `position` and `status` may be NULL; they are set even where the text does not fit. */
LINKEDOUT_API linkedout_status linkedout_ranking_failed(const linkedout_ranking *ranking, size_t index,
                                                        int64_t *position, linkedout_status *status, char *text,
                                                        size_t capacity, size_t *length);

typedef struct {
    size_t struct_size;
    double score;
    double prior;    /* the part that the prior added */
    double explored; /* the part that explore added */
} linkedout_explanation;
#define LINKEDOUT_EXPLANATION_INIT {sizeof(linkedout_explanation), 0.0, 0.0, 0.0}

/* Why the video at a place stands there: float [N][L] into `matrix`, what each event adds by each layer, compared with
 * the average video. With prior and explored they sum to the score. `capacity` in floats; `matrix` NULL and 0: without it.
 * Beyond the first 4,096 places the video must still be in the store as it was (else LINKEDOUT_NOT_FOUND). */
LINKEDOUT_API linkedout_status linkedout_ranking_explain(const linkedout_ranking *ranking, size_t place,
                                                         linkedout_explanation *explanation, float *matrix,
                                                         size_t capacity);

/* The strongest entries in words, in English. */
LINKEDOUT_API linkedout_status linkedout_ranking_sentence(const linkedout_ranking *ranking, size_t place, char *text,
                                                          size_t capacity, size_t *length);

/* Id of the video of an event that counted: of a row of the matrix. */
LINKEDOUT_API linkedout_status linkedout_ranking_event_id(const linkedout_ranking *ranking, size_t event, char *text,
                                                          size_t capacity, size_t *length);

/* ---- Taste: what the model believes a user likes, to be shown to them -------------------------------------------- */

typedef struct linkedout_taste linkedout_taste;

/* `history` and `store` may be NULL. `now` as in linkedout_rank_options. */
LINKEDOUT_API linkedout_status linkedout_taste_of(const linkedout_recommender *recommender,
                                                  const linkedout_store *store, const linkedout_history *history,
                                                  double now, linkedout_taste **taste);
LINKEDOUT_API linkedout_status linkedout_taste_close(linkedout_taste *taste);

typedef struct {
    size_t struct_size;
    size_t events;    /* that it rests on */
    size_t interests; /* 0, 1 or 2, the larger first */
    size_t avoided;   /* videos whose like is ranked low */
    size_t layers;    /* L */
} linkedout_taste_size;
#define LINKEDOUT_TASTE_SIZE_INIT {sizeof(linkedout_taste_size), 0, 0, 0, 0}

LINKEDOUT_API linkedout_status linkedout_taste_sizes(const linkedout_taste *taste, linkedout_taste_size *sizes);

/* An interest: its share of the events that attract, and how many watched videos show it. */
LINKEDOUT_API linkedout_status linkedout_taste_interest(const linkedout_taste *taste, size_t interest, double *share,
                                                        size_t *videos);

#define LINKEDOUT_AVOIDED ((size_t)-1)

/* Id of a watched video that shows an interest, the best first; with LINKEDOUT_AVOIDED, of one that is avoided. */
LINKEDOUT_API linkedout_status linkedout_taste_video(const linkedout_taste *taste, size_t interest, size_t index,
                                                     char *text, size_t capacity, size_t *length);

/* L trusts that sum to 1: at which depth of the model the taste lives. `capacity` in doubles, at least L. */
LINKEDOUT_API linkedout_status linkedout_taste_layers(const linkedout_taste *taste, double *layers, size_t capacity);

/* The same in words, in English. */
LINKEDOUT_API linkedout_status linkedout_taste_sentence(const linkedout_taste *taste, char *text, size_t capacity,
                                                        size_t *length);

#ifdef __cplusplus
}
#endif

#endif
