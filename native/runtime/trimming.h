// Texts of different lengths in one batch: what the mask says is padding at their ends is left out before the program runs, where
// nothing that the program gives depends on it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/program.h"

namespace openwork {

// Of a program: the input [batch, length] whose zeros no other position and no output knows of, the free dimension that the length
// is, and the fewest positions that the steps need.
struct Trimming {
  int mask;
  size_t dimension;
  int64_t least = 1;
};

// Only of a program that has a batch (slicing.h) and gives nothing that has positions.
std::optional<Trimming> find_trimming(const Program& program);

// Texts that run together, side by side in `Texts::order`, cut or padded to one length.
struct TextGroup {
  int64_t begin, count, length;
};

struct Texts {
  std::vector<int64_t> order;  // of the batch elements: long texts first
  std::vector<TextGroup> groups;
  bool apart = false;  // each group is one thread's; else there is one, for all threads
};

// How a batch is cut whose texts have kept positions up to these lengths, in inputs of length `padded`; no groups where nothing would be
// gained.
Texts cut_texts(const std::vector<int64_t>& lengths, int64_t padded, int threads);

// Of each row of mask [batch, padded] the positions up to the last that is not 0, at least `least`.
std::vector<int64_t> text_lengths(const int64_t* mask, int64_t batch, int64_t padded, int64_t least);

}  // namespace openwork
