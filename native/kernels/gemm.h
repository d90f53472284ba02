// Products of activations and packed weights: what a kernel takes. The meaning is docs/arithmetic.md, "Linear".
#pragma once

#include <cstdint>

#include "kernels/epilogue.h"
#include "kernels/forms.h"

namespace openwork {

// Bytes that a kernel may read behind the last element of a run of activations: the widest window, less one byte.
inline constexpr int64_t kReadAhead = 63;

// Weights as a kernel reads them: a stream of steps for each group of strips. A strip is 16 output channels, one a lane of
// four bytes. A step holds, at its place in a run of activations, the index bytes of each mask (shuffled forms: 64
// bytes, or fewer where they are compressed), then 64 weight bytes of each strip. Of `blocks` a step holds the quad of four
// bytes of each channel of a block row, run_steps is [groups, block rows], and advance goes from quad to quad over all runs,
// each of whole quads. Of `depthwise` a step holds some taps of each channel (depthwise/cut.h). Plain data: packing.h owns the
// memory.
struct PackedView {
  const uint8_t* data = nullptr;
  const int64_t* group_data = nullptr;  // [groups + 1]: where the group's steps begin in `data`
  const int64_t* group_step = nullptr;  // [groups + 1]: the number of its first step
  const int32_t* run_steps = nullptr;   // [groups, runs]: steps of each run
  const int32_t* advance = nullptr;     // [steps]: bytes from the window before, or from the beginning of the run
  const int32_t* order = nullptr;       // [channels]: the place of each sum of a group within its span, or null: as they stand
  int64_t groups = 0;
  int64_t runs = 0;
  int64_t span = 1;  // groups whose channels `order` mixes; blocks begin and end at whole spans
  int64_t run_bytes = 0;  // of activations
  int64_t kernel_w = 1;   // columns of taps
};

// Output channels that an order mixes: their sums of one tile stay in L1.
inline constexpr int64_t kSpanChannels = 512;

// Rows that need only the runs [run_begin, run_end): all that the others read is padding, which adds nothing.
struct RowBand {
  int64_t row_end;
  int64_t run_begin, run_end;

  bool operator==(const RowBand&) const = default;
};

struct GemmArgs {
  // The first byte of each run of each row of the block: x[run * x_stride + row - row_begin]. Every run is readable for
  // kReadAhead bytes behind its end.
  const uint8_t* const* x = nullptr;
  int64_t x_stride = 0;   // pointers
  int64_t row_bytes = 0;  // from one row of a run to the next, where all are as far apart; else 0
  PackedView weights;
  // Where the sums begin, by strip and lane: (activation offset of the instruction set - x_zero_point) * column sum.
  const int32_t* start = nullptr;  // INT8 only
  int64_t n = 0;                   // output channels that are stored
  Epilogue epilogue;
  const void* residual = nullptr;   // [rows, n] or null
  int64_t residual_stride = 0;      // elements
  void* y = nullptr;                // [rows, n]
  int64_t y_stride = 0;             // elements
  uint8_t* scratch = nullptr;       // of the calling thread: PackedWeights::scratch_bytes(), aligned to 64 bytes
  const RowBand* bands = nullptr;   // all of the block's rows in order, or null: they need all runs. Only windows look at it
};

// The part of the output that one call makes.
struct Block {
  int64_t row_begin, row_end;
  int64_t group_begin, group_end;
};

using GemmKernel = void (*)(const GemmArgs&, const Block&);

}  // namespace openwork
