// Handles are numbers that stand for objects: looking one up is always safe, whatever the caller hands in.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>

#include "common.hpp"

namespace linkedout {

enum class Kind { recommender, store, history, ranking, taste, bytes };

class Handles {
public:
    // A new handle; no number is ever given out twice.
    void *add(Kind kind, std::shared_ptr<void> object) {
        const std::unique_lock<std::shared_mutex> guard(lock_);
        const uintptr_t number = ++last_;
        objects_.emplace(number, Entry{kind, std::move(object)});
        return reinterpret_cast<void *>(number);
    }

    // The object, which lives at least as long as the pointer that is returned. LINKEDOUT_ARGUMENT, LINKEDOUT_CLOSED.
    std::shared_ptr<void> get(Kind kind, const void *handle) const {
        const std::shared_lock<std::shared_mutex> guard(lock_);
        return find(kind, handle)->second.object;
    }

    void close(Kind kind, const void *handle) {
        std::shared_ptr<void> object;  // goes after the lock, unless a call still uses it
        const std::unique_lock<std::shared_mutex> guard(lock_);
        const auto found = find(kind, handle);
        object = std::move(found->second.object);
        objects_.erase(found);
    }

private:
    struct Entry {
        Kind kind;
        std::shared_ptr<void> object;
    };
    using Objects = std::unordered_map<uintptr_t, Entry>;

    Objects::iterator find(Kind kind, const void *handle) const {
        if (handle == nullptr) fail(LINKEDOUT_ARGUMENT, "a handle is NULL");
        const auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        if (found == objects_.end()) fail(LINKEDOUT_CLOSED, "the handle was closed, or never was one");
        if (found->second.kind != kind) fail(LINKEDOUT_CLOSED, "the handle is of another kind");
        return found;
    }

    mutable std::shared_mutex lock_;
    mutable Objects objects_;
    uintptr_t last_ = 0;
};

}  // namespace linkedout
