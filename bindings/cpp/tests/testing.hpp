// The few lines that the tests share: checks that say where, and files.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>

namespace testing {

inline int failures = 0;

inline void check(bool good, const char *what, const char *file, int line, const std::string &more = "") {
    if (good) return;
    failures++;
    std::cerr << file << ":" << line << ": " << what << (more.empty() ? "" : ": " + more) << "\n";
}

#define CHECK(condition) testing::check((condition), #condition, __FILE__, __LINE__)
#define CHECK_SAYING(condition, more) testing::check((condition), #condition, __FILE__, __LINE__, more)

// The environment's word for something that the tests need.
inline std::string setting(const char *name) {
    const char *value = std::getenv(name);
    return value == nullptr ? "" : value;
}

inline std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        std::cerr << path << " cannot be read\n";
        std::exit(2);
    }
    return {std::istreambuf_iterator<char>(file), {}};
}

inline int finish(const char *name) {
    std::cout << name << ": " << (failures == 0 ? "passed" : std::to_string(failures) + " checks failed") << "\n";
    return failures == 0 ? 0 : 1;
}

}  // namespace testing
