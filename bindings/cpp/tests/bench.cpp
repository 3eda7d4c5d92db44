// The C++ side of benchmarks/bindings.py: does one thing for each word on stdin, and answers how long it took.
//
//     bench BUNDLE ONNXRUNTIME PACK FRAMES HISTORY
//
// PACK holds the videos: the first HISTORY of them were watched, the others are ranked. FRAMES: uint8 [7][144][144][3].
#include <chrono>
#include <fstream>
#include <iostream>
#include <linkedout_edge.hpp>
#include <string>

#include "testing.hpp"

using namespace linkedout;

int main(int count, char **arguments) {
    if (count != 6) return 2;
    LoadOptions options;
    options.onnxruntime = arguments[2];
    options.threads = 1;
    const Recommender rec(arguments[1], options);
    const std::string pack = testing::read_file(arguments[3]), frames = testing::read_file(arguments[4]);
    Store store(rec);
    store.read_pack(pack.data(), pack.size());
    const auto watched = static_cast<std::size_t>(std::stoul(arguments[5]));
    History history(rec);
    std::vector<std::string> candidates;
    for (std::size_t n = 0; n < store.size(); n++) {
        const Video video = store.at(n);
        if (n < watched)
            history.add({video.id, video.features});
        else
            candidates.push_back(video.id);
    }
    const auto rank = [&] { return rec.rank(store, history, candidates)[0].score; };
    std::cout << "ready" << std::endl;
    for (std::string word; std::getline(std::cin, word);) {
        if (word == "event") {  // not timed: the user is fitted again by the next ranking
            const std::string id = history.at(0).id;
            history.add({id});
            std::cout << 0 << std::endl;
            continue;
        }
        const auto start = std::chrono::steady_clock::now();
        if (word == "encode")
            rec.encode({reinterpret_cast<const std::uint8_t *>(frames.data()), 7, 144, 144}, "Two cats");
        else
            rank();
        std::cout << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() << std::endl;
    }
}
