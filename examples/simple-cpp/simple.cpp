// Encode raw frames, note that one video was watched, rank the others, say why.
//
//     simple BUNDLE ONNXRUNTIME FRAMES...
//
// BUNDLE is a folder such as linkedout_edge/bundles/base, ONNXRUNTIME the path of libonnxruntime.so. Each of FRAMES is
// a file of raw RGB frames of 144 x 144, such as
//
//     ffmpeg -i cats.mp4 -vf fps=7/SECONDS,scale=144:144 -pix_fmt rgb24 -f rawvideo cats.rgb
//
// The first is watched, the others are ranked.
#include <fstream>
#include <iostream>
#include <iterator>
#include <linkedout_edge.hpp>
#include <string>
#include <vector>

int main(int count, char **arguments) {
    if (count < 5) {
        std::cerr << "usage: simple BUNDLE ONNXRUNTIME WATCHED CANDIDATE...\n";
        return 2;
    }
    try {
        linkedout::LoadOptions options;
        options.onnxruntime = arguments[2];
        const linkedout::Recommender rec(arguments[1], options);
        linkedout::Store store(rec);
        linkedout::History history(rec);
        for (int n = 3; n < count; n++) {
            std::ifstream file(arguments[n], std::ios::binary);
            const std::vector<char> rgb(std::istreambuf_iterator<char>(file), {});
            const auto frames = static_cast<std::int64_t>(rgb.size() / (144 * 144 * 3));
            const linkedout::Bytes features =
                rec.encode({reinterpret_cast<const std::uint8_t *>(rgb.data()), frames, 144, 144});
            if (n == 3)
                history.add({arguments[n], features});
            else
                store.put({arguments[n], features});
        }
        const linkedout::Ranking ranking = rec.rank(store, history);
        for (const linkedout::Ranked &r : ranking.all())
            std::cout << r.rank << "  " << r.score << "  " << r.id << "  " << ranking.explain(r.rank - 1).sentence
                      << "\n";
    } catch (const linkedout::Error &e) {
        std::cerr << linkedout_status_name(e.status) << ": " << e.what() << "\n";
        return 1;
    }
}
