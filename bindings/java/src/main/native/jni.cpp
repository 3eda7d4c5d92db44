// What linkedout.edge.Native declares, on the C interface. Every way out of here is a value or a Java exception.
//
// Objects cross as the Java objects that own a handle: while they are arguments they are not collected, and null becomes
// the NULL that the C interface refuses. Text is UTF-8 in byte arrays; a list of texts is one array (see Texts.java).
//
// Not on linkedout_edge.hpp: its classes and those of the core, which is linked in, have the same names.
#include <jni.h>
#include <linkedout_edge.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(LINKEDOUT_JAVA_HEADERS)  // what javac -h made: that both sides declare the same
#include "linkedout_edge_Native.h"
#endif

namespace {

using Bytes = std::vector<std::uint8_t>;

struct Error : std::runtime_error {
    Error(linkedout_status code, const std::string &what) : std::runtime_error(what), status(code) {}
    linkedout_status status;
};

void check(linkedout_status status) {
    if (status != LINKEDOUT_OK) throw Error(status, linkedout_last_error());
}

jclass exception_class = nullptr;
jmethodID exception_constructor = nullptr;
jfieldID handle_field = nullptr;

// A Java exception is on its way: nothing more is to be done here.
struct Pending {};

template <class T>
T *sound(T *reference) {
    if (reference == nullptr) throw Pending();
    return reference;
}

void checked(JNIEnv *env) {
    if (env->ExceptionCheck() != JNI_FALSE) throw Pending();
}

jsize java_size(std::size_t size) {
    if (size > 0x7FFFFFF7) throw Error(LINKEDOUT_OUT_OF_MEMORY, "that is larger than Java's arrays can be");
    return static_cast<jsize>(size);
}

jbyteArray java_bytes(JNIEnv *env, const void *data, std::size_t size) {
    const jbyteArray out = sound(env->NewByteArray(java_size(size)));
    env->SetByteArrayRegion(out, 0, static_cast<jsize>(size), static_cast<const jbyte *>(data));
    return out;
}

jbyteArray java_bytes(JNIEnv *env, const std::string &text) { return java_bytes(env, text.data(), text.size()); }
jbyteArray java_bytes(JNIEnv *env, const Bytes &bytes) { return java_bytes(env, bytes.data(), bytes.size()); }

jint number(std::size_t count) { return count > 0x7FFFFFFF ? 0x7FFFFFFF : static_cast<jint>(count); }

void throw_java(JNIEnv *env, linkedout_status status, const char *what) noexcept {
    if (env->ExceptionCheck() != JNI_FALSE) return;
    try {
        const jbyteArray message = java_bytes(env, what, std::strlen(what));
        const jobject made =
            sound(env->NewObject(exception_class, exception_constructor, static_cast<jint>(status), message));
        env->Throw(static_cast<jthrowable>(made));
    } catch (...) {  // no memory for it: Java's own exception says so
    }
}

// No exception of C++ may reach Java.
template <class Work>
auto guarded(JNIEnv *env, const Work &work) noexcept -> decltype(work()) {
    try {
        return work();
    } catch (const Pending &) {
    } catch (const Error &e) {
        throw_java(env, e.status, e.what());
    } catch (const std::bad_alloc &) {
        throw_java(env, LINKEDOUT_OUT_OF_MEMORY, "there is no memory left for that");
    } catch (const std::exception &e) {
        throw_java(env, LINKEDOUT_INTERNAL, e.what());
    } catch (...) {
        throw_java(env, LINKEDOUT_INTERNAL, "unknown");
    }
    return decltype(work())();
}

template <class Handle>
Handle *handle(JNIEnv *env, jobject owner) {
    if (owner == nullptr) return nullptr;
    return reinterpret_cast<Handle *>(static_cast<std::uintptr_t>(env->GetLongField(owner, handle_field)));
}

linkedout_recommender *recommender(JNIEnv *env, jobject o) { return handle<linkedout_recommender>(env, o); }
linkedout_store *store(JNIEnv *env, jobject o) { return handle<linkedout_store>(env, o); }
linkedout_history *history(JNIEnv *env, jobject o) { return handle<linkedout_history>(env, o); }
linkedout_ranking *ranking(JNIEnv *env, jobject o) { return handle<linkedout_ranking>(env, o); }
linkedout_taste *taste(JNIEnv *env, jobject o) { return handle<linkedout_taste>(env, o); }

template <class Handle>
jlong java_handle(Handle *made) {
    return static_cast<jlong>(reinterpret_cast<std::uintptr_t>(made));
}

// A Java byte array's content while this lives; none for null.
class Given {
public:
    Given(JNIEnv *env, jbyteArray array) : env_(env), array_(array) {
        if (array == nullptr) return;
        size_ = static_cast<std::size_t>(env->GetArrayLength(array));
        data_ = sound(env->GetByteArrayElements(array, nullptr));
    }
    ~Given() {
        if (data_ != nullptr) env_->ReleaseByteArrayElements(array_, data_, JNI_ABORT);
    }
    Given(const Given &) = delete;
    Given &operator=(const Given &) = delete;

    const std::uint8_t *data() const { return reinterpret_cast<const std::uint8_t *>(data_); }
    std::size_t size() const { return size_; }
    linkedout_text text() const { return {reinterpret_cast<const char *>(data_), size_}; }

private:
    JNIEnv *env_;
    jbyteArray array_;
    jbyte *data_ = nullptr;
    std::size_t size_ = 0;
};

// A list of texts as Texts.java writes it: big-endian numbers. null: no list, which is not an empty one.
class GivenTexts {
public:
    GivenTexts(JNIEnv *env, jbyteArray array) : bytes_(env, array) {
        if (bytes_.data() == nullptr) return;
        const std::size_t count = next();
        texts_.reserve(std::max<std::size_t>(std::min(count, bytes_.size()), 1));
        for (std::size_t n = 0; n < count; n++) {
            const std::size_t length = next();
            if (length > bytes_.size() - at_) throw Error(LINKEDOUT_INTERNAL, "a list of texts is cut off");
            texts_.push_back({bytes_.text().data + at_, length});
            at_ += length;
        }
    }

    const linkedout_text *data() const { return bytes_.data() == nullptr ? nullptr : texts_.data(); }
    std::size_t size() const { return texts_.size(); }

private:
    std::size_t next() {
        if (bytes_.size() - at_ < 4) throw Error(LINKEDOUT_INTERNAL, "a list of texts is cut off");
        std::size_t out = 0;
        for (int n = 0; n < 4; n++) out = out << 8 | bytes_.data()[at_++];
        return out;
    }

    Given bytes_;
    std::size_t at_ = 0;
    std::vector<linkedout_text> texts_;
};

// `call` gets a buffer, its capacity and where the text's length goes.
template <class Call>
std::string read_text(const Call &call) {
    std::string out;
    std::size_t length = 0;
    check(call(nullptr, 0, &length));
    do {  // it may have become longer meanwhile
        out.resize(length);
        const linkedout_status status = call(out.data(), out.size(), &length);
        if (status != LINKEDOUT_BUFFER_TOO_SMALL) check(status);
    } while (length > out.size());
    out.resize(length);
    return out;
}

template <class Call>
jbyteArray java_text(JNIEnv *env, const Call &call) {
    return java_bytes(env, read_text(call));
}

// Bytes that the library made, which are closed.
jbyteArray java_bytes(JNIEnv *env, linkedout_bytes *made) {
    struct Owner {
        linkedout_bytes *bytes;
        ~Owner() { linkedout_bytes_close(bytes); }
    } const owner{made};
    const void *data = nullptr;
    std::size_t size = 0;
    check(linkedout_bytes_get(made, &data, &size));
    return java_bytes(env, data, size);
}

void append(std::string &out, std::size_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
}

// A list of `count` texts for Texts.java; `text` gives one.
template <class Text>
jbyteArray java_texts(JNIEnv *env, std::size_t count, const Text &text) {
    std::string out;
    append(out, static_cast<std::size_t>(java_size(count)));
    for (std::size_t n = 0; n < count; n++) {
        const std::string one = text(n);
        append(out, one.size());
        out += one;
    }
    return java_bytes(env, out);
}

// Pixels of an array, or of a direct buffer where there is none.
class GivenFrames {
public:
    GivenFrames(JNIEnv *env, jbyteArray array, jobject direct, jint offset, jint size, jint count, jint height,
                jint width)
        : array_(env, array) {
        const std::uint8_t *start = array_.data();
        if (array == nullptr && direct != nullptr)
            start = static_cast<const std::uint8_t *>(env->GetDirectBufferAddress(direct));
        frames_.data = start == nullptr ? nullptr : start + offset;
        frames_.size = static_cast<std::size_t>(size);
        frames_.count = count;
        frames_.height = height;
        frames_.width = width;
    }

    const linkedout_frames *get() const { return &frames_; }

private:
    Given array_;
    linkedout_frames frames_ = LINKEDOUT_FRAMES_INIT;
};

linkedout_info info_of(const linkedout_recommender *of) {
    linkedout_info info = LINKEDOUT_INFO_INIT;
    check(linkedout_recommender_info(of, &info));
    return info;
}

linkedout_ranking_size sizes_of(const linkedout_ranking *of) {
    linkedout_ranking_size sizes = LINKEDOUT_RANKING_SIZE_INIT;
    check(linkedout_ranking_sizes(of, &sizes));
    return sizes;
}

linkedout_taste_size sizes_of(const linkedout_taste *of) {
    linkedout_taste_size sizes = LINKEDOUT_TASTE_SIZE_INIT;
    check(linkedout_taste_sizes(of, &sizes));
    return sizes;
}

template <class Array, class Element>
using Writer = void (JNIEnv::*)(Array, jsize, jsize, const Element *);

void need(const void *array) {
    if (array == nullptr) throw Error(LINKEDOUT_ARGUMENT, "an array is null");
}

// Fill an array of Java, which has to have that size.
template <class Array, class Element, class From>
void fill(JNIEnv *env, Array array, const std::vector<From> &values, Writer<Array, Element> write) {
    static_assert(sizeof(Element) == sizeof(From), "the same numbers on both sides");
    need(array);
    (env->*write)(array, 0, java_size(values.size()), reinterpret_cast<const Element *>(values.data()));
    checked(env);
}

jdoubleArray java_doubles(JNIEnv *env, const std::vector<double> &values) {
    const jdoubleArray out = sound(env->NewDoubleArray(java_size(values.size())));
    fill(env, out, values, &JNIEnv::SetDoubleArrayRegion);
    return out;
}

jlongArray java_longs(JNIEnv *env, const std::vector<std::int64_t> &values) {
    const jlongArray out = sound(env->NewLongArray(java_size(values.size())));
    fill(env, out, values, &JNIEnv::SetLongArrayRegion);
    return out;
}

jintArray java_ints(JNIEnv *env, const std::vector<std::int32_t> &values) {
    const jintArray out = sound(env->NewIntArray(java_size(values.size())));
    fill(env, out, values, &JNIEnv::SetIntArrayRegion);
    return out;
}

}  // namespace

#define NATIVE(type, name) extern "C" JNIEXPORT type JNICALL Java_linkedout_edge_Native_##name

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *) {
    void *given = nullptr;
    if (vm->GetEnv(&given, JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
    auto *const env = static_cast<JNIEnv *>(given);
    const jclass handle = env->FindClass("linkedout/edge/Handle");
    if (handle == nullptr || (handle_field = env->GetFieldID(handle, "handle", "J")) == nullptr) return JNI_ERR;
    const jclass exception = env->FindClass("linkedout/edge/LinkedOutException");
    if (exception == nullptr) return JNI_ERR;
    exception_constructor = env->GetMethodID(exception, "<init>", "(I[B)V");
    if (exception_constructor == nullptr) return JNI_ERR;
    exception_class = static_cast<jclass>(env->NewGlobalRef(exception));
    return exception_class == nullptr ? JNI_ERR : JNI_VERSION_1_6;
}

NATIVE(void, close)(JNIEnv *env, jclass, jint kind, jlong number) {
    guarded(env, [&] {
        void *const handle = reinterpret_cast<void *>(static_cast<std::uintptr_t>(number));
        switch (kind) {  // as in Handle.Kind
            case 0: return check(linkedout_recommender_close(static_cast<linkedout_recommender *>(handle)));
            case 1: return check(linkedout_store_close(static_cast<linkedout_store *>(handle)));
            case 2: return check(linkedout_history_close(static_cast<linkedout_history *>(handle)));
            case 3: return check(linkedout_ranking_close(static_cast<linkedout_ranking *>(handle)));
            case 4: return check(linkedout_taste_close(static_cast<linkedout_taste *>(handle)));
            default: throw Error(LINKEDOUT_INTERNAL, "no such kind of handle");
        }
    });
}

NATIVE(jbyteArray, version)(JNIEnv *env, jclass) {
    return guarded(env, [&] { return java_bytes(env, std::string(linkedout_version())); });
}

// ---- The recommender -------------------------------------------------------------------------------------------------

NATIVE(jlong, load)
(JNIEnv *env, jclass, jbyteArray bundle, jbyteArray precision, jbyteArray onnxruntime, jint threads,
 jboolean without_encoder) {
    return guarded(env, [&] {
        const Given folder(env, bundle), which(env, precision), library(env, onnxruntime);
        linkedout_load_options options = LINKEDOUT_LOAD_OPTIONS_INIT;
        options.bundle = folder.text();
        options.precision = which.text();
        options.onnxruntime = library.text();
        options.threads = threads;
        options.without_encoder = without_encoder == JNI_FALSE ? 0 : 1;
        linkedout_recommender *made = nullptr;
        check(linkedout_load(&options, &made));
        return java_handle(made);
    });
}

NATIVE(jlongArray, info)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        const linkedout_info i = info_of(recommender(env, of));
        return java_longs(env, {i.frames, i.frame_size, i.title_tokens, i.layers, i.tokens_per_layer, i.token_width,
                                i.threads, i.has_encoder, static_cast<std::int64_t>(i.features_size)});
    });
}

NATIVE(jbyteArray, infoText)(JNIEnv *env, jclass, jobject of, jint which, jint index) {
    return guarded(env, [&] {
        return java_text(env, [&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_recommender_text(recommender(env, of), which, static_cast<std::size_t>(index), to,
                                              capacity, length);
        });
    });
}

NATIVE(jlongArray, chooseFrames)(JNIEnv *env, jclass, jobject of, jlong total) {
    return guarded(env, [&] {
        const linkedout_recommender *const rec = recommender(env, of);
        std::vector<std::int64_t> out(static_cast<std::size_t>(info_of(rec).frames));
        std::size_t count = 0;
        check(linkedout_choose_frames(rec, total, out.data(), out.size(), &count));
        out.resize(count);
        return java_longs(env, out);
    });
}

NATIVE(jbyteArray, prepareFrames)
(JNIEnv *env, jclass, jobject of, jbyteArray array, jobject direct, jint offset, jint size, jint count, jint height,
 jint width) {
    return guarded(env, [&] {
        const linkedout_recommender *const rec = recommender(env, of);
        const linkedout_info info = info_of(rec);
        const GivenFrames frames(env, array, direct, offset, size, count, height, width);
        const auto side = static_cast<std::size_t>(info.frame_size);
        Bytes out(static_cast<std::size_t>(info.frames) * side * side * 3);
        std::size_t prepared = 0;
        check(linkedout_prepare_frames(rec, frames.get(), out.data(), out.size(), &prepared));
        return java_bytes(env, out.data(), prepared * side * side * 3);
    });
}

NATIVE(jintArray, tokenize)(JNIEnv *env, jclass, jobject of, jbyteArray title) {
    return guarded(env, [&] {
        const Given given(env, title);
        const linkedout_recommender *const rec = recommender(env, of);
        std::size_t count = 0;
        check(linkedout_tokenize(rec, given.text(), nullptr, 0, &count));
        std::vector<std::int32_t> out(count);
        check(linkedout_tokenize(rec, given.text(), out.data(), out.size(), &count));
        return java_ints(env, out);
    });
}

NATIVE(jbyteArray, encode)
(JNIEnv *env, jclass, jobject of, jbyteArray array, jobject direct, jint offset, jint size, jint count, jint height,
 jint width, jbyteArray title) {
    return guarded(env, [&] {
        const linkedout_recommender *const rec = recommender(env, of);
        const GivenFrames frames(env, array, direct, offset, size, count, height, width);
        const Given text(env, title);
        Bytes out(info_of(rec).features_size);
        check(linkedout_encode(rec, frames.get(), text.text(), out.data(), out.size()));
        return java_bytes(env, out);
    });
}

// ---- The store -------------------------------------------------------------------------------------------------------

NATIVE(jlong, createStore)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        linkedout_store *made = nullptr;
        check(linkedout_store_create(recommender(env, of), &made));
        return java_handle(made);
    });
}

NATIVE(void, put)
(JNIEnv *env, jclass, jobject to, jbyteArray id, jbyteArray title, jbyteArray content, jbyteArray features) {
    guarded(env, [&] {
        const Given name(env, id), called(env, title), hash(env, content), kept(env, features);
        linkedout_video video = LINKEDOUT_VIDEO_INIT;
        video.id = name.text();
        video.title = called.text();
        video.content = hash.text();
        video.features = kept.data();
        video.features_size = kept.size();
        check(linkedout_store_put(store(env, to), &video));
    });
}

NATIVE(jint, remove)(JNIEnv *env, jclass, jobject from, jbyteArray ids) {
    return guarded(env, [&] {
        const GivenTexts given(env, ids);
        std::size_t removed = 0;
        check(linkedout_store_remove(store(env, from), given.data(), given.size(), &removed));
        return number(removed);
    });
}

NATIVE(jint, storeCount)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        std::size_t count = 0;
        check(linkedout_store_count(store(env, of), &count));
        return number(count);
    });
}

NATIVE(jint, find)(JNIEnv *env, jclass, jobject in, jbyteArray id) {
    return guarded(env, [&]() -> jint {
        const Given given(env, id);
        std::size_t position = 0;
        const linkedout_status status = linkedout_store_find(store(env, in), given.text(), &position);
        if (status == LINKEDOUT_NOT_FOUND) return -1;
        check(status);
        return number(position);
    });
}

NATIVE(jbyteArray, storeText)(JNIEnv *env, jclass, jobject of, jint position, jint which) {
    return guarded(env, [&] {
        return java_text(env, [&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_store_text(store(env, of), static_cast<std::size_t>(position), which, to, capacity,
                                        length);
        });
    });
}

NATIVE(jbyteArray, storeFeatures)(JNIEnv *env, jclass, jobject of, jint position, jint size) {
    return guarded(env, [&] {
        Bytes out(static_cast<std::size_t>(size));
        check(linkedout_store_features(store(env, of), static_cast<std::size_t>(position), out.data(), out.size()));
        return java_bytes(env, out);
    });
}

NATIVE(jint, readPack)(JNIEnv *env, jclass, jobject to, jbyteArray pack) {
    return guarded(env, [&] {
        const Given given(env, pack);
        std::size_t count = 0;
        check(linkedout_store_read_pack(store(env, to), given.data(), given.size(), &count));
        return number(count);
    });
}

NATIVE(jbyteArray, writePack)(JNIEnv *env, jclass, jobject of, jbyteArray ids) {
    return guarded(env, [&] {
        const GivenTexts given(env, ids);
        linkedout_bytes *pack = nullptr;
        check(linkedout_store_write_pack(store(env, of), given.data(), given.size(), &pack));
        return java_bytes(env, pack);
    });
}

// ---- The history -----------------------------------------------------------------------------------------------------

NATIVE(jlong, createHistory)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        linkedout_history *made = nullptr;
        check(linkedout_history_create(recommender(env, of), &made));
        return java_handle(made);
    });
}

NATIVE(jlong, loadHistory)(JNIEnv *env, jclass, jobject of, jbyteArray saved) {
    return guarded(env, [&] {
        const Given given(env, saved);
        linkedout_history *made = nullptr;
        check(linkedout_history_load(recommender(env, of), given.data(), given.size(), &made));
        return java_handle(made);
    });
}

NATIVE(void, add)
(JNIEnv *env, jclass, jobject to, jbyteArray id, jbyteArray title, jbyteArray features, jdouble watched, jint liked,
 jboolean has_at, jdouble at) {
    guarded(env, [&] {
        const Given name(env, id), called(env, title), kept(env, features);
        linkedout_video video = LINKEDOUT_VIDEO_INIT;
        video.id = name.text();
        video.title = called.text();
        video.features = kept.data();
        video.features_size = kept.size();
        linkedout_event event = LINKEDOUT_EVENT_INIT;
        event.video = &video;
        event.watched = watched;
        event.liked = liked;
        event.has_at = has_at == JNI_FALSE ? 0 : 1;
        event.at = at;
        check(linkedout_history_add(history(env, to), &event));
    });
}

NATIVE(jint, forget)(JNIEnv *env, jclass, jobject in, jbyteArray id) {
    return guarded(env, [&] {
        const Given given(env, id);
        std::size_t removed = 0;
        check(linkedout_history_forget(history(env, in), given.text(), &removed));
        return number(removed);
    });
}

NATIVE(jint, forgetSince)(JNIEnv *env, jclass, jobject in, jdouble at) {
    return guarded(env, [&] {
        std::size_t removed = 0;
        check(linkedout_history_forget_since(history(env, in), at, &removed));
        return number(removed);
    });
}

NATIVE(jint, clear)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        std::size_t removed = 0;
        check(linkedout_history_clear(history(env, of), &removed));
        return number(removed);
    });
}

NATIVE(jint, historyCount)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        std::size_t events = 0;
        check(linkedout_history_count(history(env, of), &events));
        return number(events);
    });
}

NATIVE(jdoubleArray, historyEvent)(JNIEnv *env, jclass, jobject of, jint position) {
    return guarded(env, [&] {
        linkedout_event event = LINKEDOUT_EVENT_INIT;
        check(linkedout_history_event(history(env, of), static_cast<std::size_t>(position), &event));
        return java_doubles(
            env, {event.watched, static_cast<double>(event.liked), static_cast<double>(event.has_at), event.at});
    });
}

NATIVE(jbyteArray, historyText)(JNIEnv *env, jclass, jobject of, jint position, jint which) {
    return guarded(env, [&] {
        return java_text(env, [&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_history_text(history(env, of), static_cast<std::size_t>(position), which, to, capacity,
                                          length);
        });
    });
}

NATIVE(jbyteArray, historyFeatures)(JNIEnv *env, jclass, jobject of, jint position, jint size) {
    return guarded(env, [&] {
        Bytes out(static_cast<std::size_t>(size));
        check(linkedout_history_features(history(env, of), static_cast<std::size_t>(position), out.data(), out.size()));
        return java_bytes(env, out);
    });
}

NATIVE(jbyteArray, save)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        linkedout_bytes *saved = nullptr;
        check(linkedout_history_save(history(env, of), &saved));
        return java_bytes(env, saved);
    });
}

// ---- Ranking ---------------------------------------------------------------------------------------------------------

NATIVE(jlong, rank)
(JNIEnv *env, jclass, jobject rec, jobject videos, jobject past, jbyteArray candidates, jlong top_k, jdouble diversity,
 jdouble explore, jboolean exclude_watched, jboolean fold_duplicates, jdoubleArray prior, jbyteArray prior_ids,
 jdouble prior_weight, jdouble now) {
    return guarded(env, [&] {
        const GivenTexts ids(env, candidates), of_prior(env, prior_ids);
        linkedout_rank_options options = LINKEDOUT_RANK_OPTIONS_INIT;
        options.top_k = top_k;
        options.diversity = diversity;
        options.explore = explore;
        options.exclude_watched = exclude_watched == JNI_FALSE ? 0 : 1;
        options.fold_duplicates = fold_duplicates == JNI_FALSE ? 0 : 1;
        options.prior_weight = prior_weight;
        options.now = now;
        std::vector<double> values;
        if (prior != nullptr) {
            const jsize count = env->GetArrayLength(prior);
            values.resize(static_cast<std::size_t>(std::max<jsize>(count, 1)));  // an empty prior is one, too
            env->GetDoubleArrayRegion(prior, 0, count, values.data());
            checked(env);
            options.prior = values.data();
            options.prior_count = static_cast<std::size_t>(count);
            options.prior_ids = of_prior.data();
        }
        linkedout_ranking *made = nullptr;
        check(linkedout_rank(recommender(env, rec), store(env, videos), history(env, past), ids.data(), ids.size(),
                             &options, &made));
        return java_handle(made);
    });
}

NATIVE(jintArray, rankingSizes)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        const linkedout_ranking_size sizes = sizes_of(ranking(env, of));
        return java_ints(
            env, {java_size(sizes.places), java_size(sizes.failed), java_size(sizes.events), java_size(sizes.layers)});
    });
}

NATIVE(void, rankingPlaces)
(JNIEnv *env, jclass, jobject of, jlongArray positions, jfloatArray scores, jintArray sources, jfloatArray layers) {
    guarded(env, [&] {
        const linkedout_ranking *const ranked = ranking(env, of);
        const linkedout_ranking_size sizes = sizes_of(ranked);
        std::vector<std::int64_t> where(sizes.places);
        std::vector<float> score(sizes.places), by_layer(sizes.places * sizes.layers);
        std::vector<std::int32_t> source(sizes.places);
        check(linkedout_ranking_places(ranked, 0, sizes.places, where.data(), score.data(), source.data(),
                                       by_layer.data()));
        fill(env, positions, where, &JNIEnv::SetLongArrayRegion);
        fill(env, scores, score, &JNIEnv::SetFloatArrayRegion);
        fill(env, sources, source, &JNIEnv::SetIntArrayRegion);
        fill(env, layers, by_layer, &JNIEnv::SetFloatArrayRegion);
    });
}

NATIVE(jbyteArray, rankingIds)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        const linkedout_ranking *const ranked = ranking(env, of);
        return java_texts(env, sizes_of(ranked).places, [&](std::size_t place) {
            return read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                return linkedout_ranking_id(ranked, place, to, capacity, length);
            });
        });
    });
}

NATIVE(void, rankingFailed)(JNIEnv *env, jclass, jobject of, jlongArray positions, jintArray statuses) {
    guarded(env, [&] {
        const linkedout_ranking *const ranked = ranking(env, of);
        std::vector<std::int64_t> where(sizes_of(ranked).failed);
        std::vector<std::int32_t> why(where.size());
        for (std::size_t n = 0; n < where.size(); n++) {
            std::size_t length = 0;
            check(linkedout_ranking_failed(ranked, n, &where[n], &why[n], nullptr, 0, &length));
        }
        fill(env, positions, where, &JNIEnv::SetLongArrayRegion);
        fill(env, statuses, why, &JNIEnv::SetIntArrayRegion);
    });
}

NATIVE(jdoubleArray, explain)(JNIEnv *env, jclass, jobject of, jint place, jfloatArray matrix) {
    return guarded(env, [&] {
        need(matrix);
        linkedout_explanation why = LINKEDOUT_EXPLANATION_INIT;
        std::vector<float> values(static_cast<std::size_t>(env->GetArrayLength(matrix)));
        check(linkedout_ranking_explain(ranking(env, of), static_cast<std::size_t>(place), &why, values.data(),
                                        values.size()));
        fill(env, matrix, values, &JNIEnv::SetFloatArrayRegion);
        return java_doubles(env, {why.score, why.prior, why.explored});
    });
}

NATIVE(jbyteArray, rankingSentence)(JNIEnv *env, jclass, jobject of, jint place) {
    return guarded(env, [&] {
        return java_text(env, [&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_ranking_sentence(ranking(env, of), static_cast<std::size_t>(place), to, capacity, length);
        });
    });
}

NATIVE(jbyteArray, eventIds)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        const linkedout_ranking *const ranked = ranking(env, of);
        return java_texts(env, sizes_of(ranked).events, [&](std::size_t event) {
            return read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                return linkedout_ranking_event_id(ranked, event, to, capacity, length);
            });
        });
    });
}

// ---- Taste -----------------------------------------------------------------------------------------------------------

NATIVE(jlong, taste)(JNIEnv *env, jclass, jobject rec, jobject videos, jobject past, jdouble now) {
    return guarded(env, [&] {
        linkedout_taste *made = nullptr;
        check(linkedout_taste_of(recommender(env, rec), store(env, videos), history(env, past), now, &made));
        return java_handle(made);
    });
}

NATIVE(jintArray, tasteSizes)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        const linkedout_taste_size sizes = sizes_of(taste(env, of));
        return java_ints(env, {java_size(sizes.events), java_size(sizes.interests), java_size(sizes.avoided),
                               java_size(sizes.layers)});
    });
}

NATIVE(jdouble, tasteShare)(JNIEnv *env, jclass, jobject of, jint interest) {
    return guarded(env, [&] {
        double share = 0;
        check(linkedout_taste_interest(taste(env, of), static_cast<std::size_t>(interest), &share, nullptr));
        return share;
    });
}

NATIVE(jbyteArray, tasteVideos)(JNIEnv *env, jclass, jobject of, jint interest) {
    return guarded(env, [&] {
        const linkedout_taste *const made = taste(env, of);
        const std::size_t which = interest < 0 ? LINKEDOUT_AVOIDED : static_cast<std::size_t>(interest);
        std::size_t count = sizes_of(made).avoided;
        if (interest >= 0) check(linkedout_taste_interest(made, which, nullptr, &count));
        return java_texts(env, count, [&](std::size_t n) {
            return read_text([&](char *to, std::size_t capacity, std::size_t *length) {
                return linkedout_taste_video(made, which, n, to, capacity, length);
            });
        });
    });
}

NATIVE(jdoubleArray, tasteLayers)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        std::vector<double> out(sizes_of(taste(env, of)).layers);
        check(linkedout_taste_layers(taste(env, of), out.data(), out.size()));
        return java_doubles(env, out);
    });
}

NATIVE(jbyteArray, tasteSentence)(JNIEnv *env, jclass, jobject of) {
    return guarded(env, [&] {
        return java_text(env, [&](char *to, std::size_t capacity, std::size_t *length) {
            return linkedout_taste_sentence(taste(env, of), to, capacity, length);
        });
    });
}
