// What the operators on rows of tables take, and on the vectors that they make. Shapes, meaning and order of operations:
// docs/program.md and docs/arithmetic.md.
#pragma once

#include <cstdint>

#include "simd/math.h"

namespace openwork {

// Rows of floats, or of bytes, each row with its own scale and zero point.
struct RowTable {
  const void* rows = nullptr;  // [.., width]
  int64_t width = 0;
  const float* scale = nullptr;  // of bytes only
  const uint8_t* zero_point = nullptr;
};

enum class BagMode { sum, mean, max };

// Unit: a bag. Without offsets bag b holds the ids from b * stride + first on, `count` of them; with offsets it begins at its own
// and ends at the next one, the last bag at `end` where no offset follows.
struct EmbeddingBagArgs {
  RowTable table;
  const int64_t* ids = nullptr;  // inside the table
  const int64_t* offsets = nullptr;
  const float* weights = nullptr;  // as ids, or null
  int64_t stride = 1, first = 0, count = 1;
  int64_t bags = 0, end = 0;
  bool last_given = false;  // an offset follows the last bag's
  BagMode mode = BagMode::sum;
  float* y = nullptr;
  int64_t y_stride = 0;  // elements from bag to bag
};

// Rows of vectors that stand side by side for each batch element.
struct Vectors {
  const float* data = nullptr;
  int64_t stride = 0;  // elements from one batch element to the next
  int64_t count = 1;   // vectors of one
};

// Elements of one thread's scratch: a pointer for each vector, and a row of y.
constexpr int64_t interaction_row(int64_t vectors, int64_t width) {
  return (width + vectors * (vectors - 1) / 2 + 63) / 64 * 64;
}

// Unit: a batch element.
struct InteractionArgs {
  const Vectors* x = nullptr;  // `parts` of them
  int64_t parts = 0;
  int64_t vectors = 0, width = 0;  // of all parts together
  void* y = nullptr;
  int64_t y_stride = 0;
  bool y_bytes = false;
  Quantizer quantizer = {};
  const float** rows = nullptr;  // this thread's: [vectors]
  float* made = nullptr;         // this thread's: interaction_row(vectors, width) floats
};

}  // namespace openwork
