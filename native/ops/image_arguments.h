// What the operators on images take; as ops/arguments.h.
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"
#include "simd/activations.h"

namespace openwork {

// Where a window lies along one axis: the first of its taps that is inside of the image, how many are, and how many a mean
// counts.
struct PoolSpan {
  int64_t first = 0, taps = 0, counted = 1;
};

// Unit: one of `parts` ranges of the channels of a line of output pixels; the parts vary fastest. x is readable for kReadAhead
// bytes behind its end.
struct PoolArgs {
  const void* x = nullptr;  // [batch, height, width, channels]
  void* y = nullptr;        // [batch, out_height, out_width, channels], from pixel to pixel y_stride elements
  bool x_bytes = false, y_bytes = false;
  int64_t height = 1, width = 1, channels = 1;
  int64_t out_height = 1, out_width = 1, y_stride = 1;
  int64_t row_step = 1, column_step = 1;   // elements from tap to tap
  const PoolSpan* rows = nullptr;          // [out_height]
  const PoolSpan* columns = nullptr;       // [out_width]
  int64_t parts = 1, part_channels = 1;    // of whole blocks of kPoolBlock
  float x_scale = 1.0f;                    // of bytes that are averaged
  int32_t x_zero_point = 0;
  Quantizer quantizer = {};                // of a mean as bytes
};

// Bytes of which 16 bits hold the sum.
inline constexpr int64_t kMostBytesSummed = 257;
// Pixels of which INT32 holds the sum of bytes.
inline constexpr int64_t kMostPixelsSummed = int64_t{1} << 23;

// Pixels whose sums are made in four chains and then added to the others'.
inline constexpr int64_t kPixelBlock = 256;

// Unit: one of `parts` ranges of whole groups of an image; the parts vary fastest. The channels of a pixel follow each other.
struct GroupNormArgs {
  const float* x = nullptr;      // [batch, pixels, channels], from pixel to pixel x_stride elements
  const float* shift = nullptr;  // [batch, channels], added to every pixel before anything else, or null
  const float* gamma = nullptr;  // [channels]
  const float* beta = nullptr;
  int64_t pixels = 1, channels = 1, group = 1;  // channels of all, and of one group
  int64_t x_stride = 1, y_stride = 1;
  int64_t parts = 1, part_channels = 1;
  float epsilon = 0.0f;
  ActivationFunction activation = {};
  Stored stored = Stored::f32;   // f32, bf16 or u8
  Quantizer quantizer = {};
  void* y = nullptr;
  float* scratch = nullptr;      // this thread's: twice part_channels in whole strips
};

// Unit: a tile of kTransposeTile columns and kTransposeTile rows of one matrix; the tiles of a row of tiles vary fastest.
inline constexpr int64_t kTransposeTile = 256;

struct TransposeArgs {
  const void* x = nullptr;  // [batch, rows, columns]
  void* y = nullptr;        // [batch, columns, rows]
  int64_t rows = 1, columns = 1;
  bool x_bytes = false, y_bytes = false;  // floats become bytes by `quantizer`
  Quantizer quantizer = {};

  int64_t row_tiles() const { return (rows + kTransposeTile - 1) / kTransposeTile; }
  int64_t column_tiles() const { return (columns + kTransposeTile - 1) / kTransposeTile; }
};

}  // namespace openwork
