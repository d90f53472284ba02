// What is joined along its rows: each piece is written where it ends up, or copied there, and the bits are the same.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "test/branch_runs.h"
#include "test/convolution_problems.h"
#include "test/harness.h"

namespace openwork {
namespace {

using test::Branches, test::Build, test::build, test::kChannels, test::run, test::run_guarded;

int64_t count_inside(const Program& program) {
  int64_t found = 0;
  for (int v = 0; v < static_cast<int>(program.values().size()); ++v) found += program.home_of(v).stride > 0;
  return found;
}

// `inside`: values that lie inside of others.
void check(const std::string& what, int64_t inside, const Build& steps) { test::check_runs(what, steps, count_inside, inside); }

TEST(pieces_are_written_where_they_are_joined) {
  check("convolutions and pools", 5, [](Branches& b) {
    const int narrow = b.conv(b.x, 5, 1), wide = b.conv(b.x, 70, 3);
    return std::vector{b.concat({b.conv(wide, 33, 1), b.conv(narrow, 16, 3), b.pool("max_pool", b.x),
                                 b.pool("average_pool", b.x), b.conv(b.x, 3, 1, DType::u8, b.slice(b.x, 4, 7))})};
  });
  check("sums and slices", 3, [](Branches& b) {
    return std::vector{b.concat({b.add(b.x, b.conv(b.x, kChannels, 1)), b.slice(b.x, 3, 10), b.slice(b.x, 0, 1)})};
  });
  check("floats", 3, [](Branches& b) {
    return std::vector{b.concat({b.dequantize(b.x), b.conv(b.x, 9, 3, DType::f32), b.dequantize(b.conv(b.x, 4, 1))})};
  });
}

TEST(what_reads_the_whole_finds_every_piece) {
  check("a convolution behind", 2, [](Branches& b) {
    return std::vector{b.conv(b.concat({b.conv(b.x, 12, 1), b.conv(b.x, 21, 3)}), 18, 3)};
  });
}

TEST(pieces_of_pieces_lie_in_the_widest_rows) {
  check("one in the other", 5, [](Branches& b) {
    const int inner = b.concat({b.conv(b.x, 7, 1), b.conv(b.x, 11, 3)});
    return std::vector{b.concat({b.pool("max_pool", b.x), inner, b.conv(b.x, 2, 1)})};
  });
  // Each layer reads all before it: all of them lie in the last one's rows, and so do the shorter ones.
  check("a dense block", 7, [](Branches& b) {
    std::vector<int> all{b.pool("max_pool", b.x)};
    for (int i = 0; i < 3; ++i) {
      const int before = all.size() == 1 ? all[0] : b.concat(all);
      all.push_back(b.conv(b.conv(before, 24, 1), 9, 3));
    }
    return std::vector{b.pool("max_pool", b.concat(all)), b.conv(b.concat({all[1], all[2]}), 5, 1)};
  });
  check("a chain", 6, [](Branches& b) {
    int all = b.pool("max_pool", b.x);
    for (int i = 0; i < 3; ++i) all = b.concat({all, b.conv(b.conv(all, 24, 1), 9, 3)});
    return std::vector{b.pool("max_pool", all)};
  });
}

TEST(convolutions_of_single_taps_read_pieces_where_they_lie) {
  for (const int64_t kernel : {1, 3})
    check("kernel " + std::to_string(kernel), 3, [kernel](Branches& b) {
      const int piece = b.conv(b.x, 12, 1), other = b.conv(b.x, 4, 1);
      const int behind = b.conv_of_taps(piece, 8, kernel);
      return std::vector{b.pool("max_pool", b.concat({other, piece, b.pool("average_pool", behind)}))};
    });
}

TEST(pieces_that_others_need_as_they_are_are_copied) {
  check("read by a convolution of rows of taps", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(piece, 8, 3)})};
  });
  check("read by a pool", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.pool("max_pool", piece)})};
  });
  check("an output", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 8, 3)}), piece};
  });
  check("an input", 1, [](Branches& b) { return std::vector{b.concat({b.x, b.conv(b.x, 8, 3)})}; });
  check("through tables", 1, [](Branches& b) {
    return std::vector{b.concat({b.conv(b.x, 12, 1), b.conv(b.x, 8, 3), b.x}, {0, 2})};
  });
  check("twice", 2, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 5, 1), piece})};
  });
  check("in two places", 3, [](Branches& b) {
    const int first = b.conv(b.x, 12, 1), second = b.conv(b.x, 5, 1), third = b.conv(b.x, 6, 1);
    return std::vector{b.concat({first, second, third}), b.concat({second, first})};
  });
}

// A product reads on behind the rows that it reads: what it writes must not lie there.
TEST(no_step_reads_on_into_what_it_writes) {
  check("one tap of a piece", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.conv(b.concat({piece, b.conv(piece, 8, 1)}), 5, 1)};
  });
  check("of an output, the next slice", 1, [](Branches& b) {
    const int piece = b.conv(b.x, 12, 1);
    return std::vector{b.concat({piece, b.conv(b.x, 8, 1)}), b.conv(piece, 4, 1)};
  });
}

// Steps on random values made before, joins of joins among them.
std::vector<int> random_steps(Branches& b, std::mt19937& rng) {
  std::vector<int> made{b.x};
  const auto any = [&] { return made[rng() % made.size()]; };
  for (int i = 0; i < 14; ++i) {
    const int from = any();
    const int64_t kernel = rng() % 2 ? 1 : 3, n = test::draw(rng, 1, 40);
    switch (rng() % 8) {
      case 0: made.push_back(b.conv(from, n, kernel)); break;
      case 1: made.push_back(b.conv_of_taps(from, n, kernel)); break;
      case 2: made.push_back(b.pool(rng() % 2 ? "max_pool" : "average_pool", from)); break;
      case 3: made.push_back(b.add(from, from)); break;
      case 4: made.push_back(b.slice(from, 0, (b.channels(from) + 1) / 2)); break;
      default: {
        std::vector<int> pieces{from};
        while (rng() % 3 && pieces.size() < 4) pieces.push_back(any());
        std::vector<size_t> turned;
        if (rng() % 4 == 0) turned.push_back(rng() % pieces.size());
        made.push_back(b.concat(pieces, turned));
      }
    }
  }
  std::vector<int> outputs{made.back()};
  if (const int other = any(); other != b.x && other != made.back()) outputs.push_back(other);
  return outputs;
}

TEST(random_joins_on_threads_give_the_bits_of_copies) {
  test::check_random_runs(random_steps, count_inside);
}

}  // namespace
}  // namespace openwork
