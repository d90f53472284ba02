// How products on a matrix unit are cut: what packing and the kernels (run.h) agree on.
//
// Activations stand in a panel: of up to 32 rows everything that they are multiplied with, run after run, in lines of 64 bytes;
// [line][32 rows][64]. A step multiplies one line of every row with a tile of weights for each strip: 16 rows of 64 bytes, quads of
// four bytes of the 16 channels. The weights of a group of strips are stored by pairs of strips (`columns`), [pair][step][strip].
#pragma once

#include <cstdint>

#include "kernels/gemm.h"

namespace openwork::tiles {

inline constexpr int64_t kLineBytes = 64;
inline constexpr int kTileRows = 16;
inline constexpr int64_t kTileBytes = kTileRows * kLineBytes;
inline constexpr int kPanelRows = 2 * kTileRows;
inline constexpr int64_t kPanelLineBytes = kPanelRows * kLineBytes;

// Strips of a group: those that share a mask, or two.
constexpr int group_strips(const FormInfo& info) { return info.share > 0 ? info.share : 2; }
constexpr int pair_strips(const FormInfo& info) { return group_strips(info) > 1 ? 2 : 1; }

// Where strips share a mask: a step takes the bytes that they keep of up to four lines. Bit i of mask[s] is set where byte i of the
// step comes from line[s], from its byte index[s][i]. The group's gathers stand before its weights.
inline constexpr int kSources = 4;
struct alignas(64) Gather {
  uint64_t mask[kSources];
  int32_t line[kSources];
  int32_t sources;
  int32_t unused[3];
  uint8_t index[kSources][kLineBytes];
};
static_assert(sizeof(Gather) == 320);

// Where weights are compressed: each tile's 16 masks, a bit a byte, and the bytes that are not zero.
inline constexpr int64_t kMaskBytes = kTileRows * 8;

constexpr int64_t lines(int64_t bytes) { return (bytes + kLineBytes - 1) / kLineBytes; }

// Rows of a block whose panels a kernel for few rows has at once, so that it expands each weight once for all of them.
inline constexpr int64_t kFewRowsPanels = 4;

// Where a thread's memory has what, and how much it is: one row of activations, its panels, and two buffers of gathered lines or
// of expanded weights. No group takes more steps than the panel has lines: a step of less than 64 bytes empties three.
struct Scratch {
  int64_t panels, lines, bytes;
};
constexpr Scratch scratch_of(const FormInfo& info, int64_t panel_lines) {
  const int64_t panels = (panel_lines + 1) * kLineBytes;
  const int64_t lines = panels + (info.few_rows() ? kFewRowsPanels : 1) * panel_lines * kPanelLineBytes;
  const int64_t expanded = info.few_rows() ? 2 * kTileBytes : 0, gathered = info.share > 0 ? kPanelLineBytes : 0;
  return {panels, lines, lines + panel_lines * 2 * (expanded + gathered)};
}

}  // namespace openwork::tiles
