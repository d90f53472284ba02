// A large batch is run in slices: each thread takes a few batch elements through the whole program by itself. Their
// activations stay in its L2 from step to step, and no step waits for another thread.
#pragma once

#include <cstdint>

#include "runtime/plan.h"

namespace openwork {

struct Slicing {
  int64_t size = 0;   // batch elements of a slice
  int64_t count = 0;  // slices; what is left of the batch runs as a whole, on all threads

  int64_t covered() const { return size * count; }
};

// Fewer rows than this would leave the register tiles half empty.
inline constexpr int64_t kSliceRows = 128;

// Whether the first dimension of every value is the batch, free or fixed, so that batch elements do not meet: every step keeps
// the dimensions before those it works on, and where all values are equally long in the first, it works on none of these. Not
// where a step says that elements know of each other, or reads on behind an output's slice while the next one is written.
bool has_batch(const Program& program);

// How the batch of these sizes, of a program that has one, is cut: as many slices as all threads finish in the same number of
// turns, and nearly nothing left. Small slices keep their activations in the second level of cache, large ones stream the weights
// less often: those are taken that move the fewest bytes from behind it.
Slicing slice_batch(const Program& program, const Sizes& sizes);

}  // namespace openwork
