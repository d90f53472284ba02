// The forms with rows in the lanes, which hold every weight and leave out the quads that are zero for a whole block row.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "kernels/blocks/cut.h"
#include "kernels/body.h"
#include "kernels/nonzeros.h"
#include "kernels/packer.h"

namespace openwork::blocks {
namespace {

// For each row a channel's quad is a sixteenth of a strip's dot product. Interleaving a byte of activations and transposing a
// sum are measured on Zen 5.
constexpr double kInterleaveWork = 0.1, kTransposeWork = 0.25;

int64_t run_bytes(const WeightShape& s, Type type) { return s.run_elements() * element_bytes(type); }

std::string refuse(const WeightShape&, Type, Form, const KernelTable&) { return ""; }

class BlockPacking {
 public:
  explicit BlockPacking(Packer& to)
      : to_(to), share_(to.info().share), run_quads_((to.shape().run_elements() + to.slots() - 1) / to.slots()),
        left_(to.reader(), 1, share_), rows_(to.reader(), share_) {}

  void pack() {
    for (int64_t channel = 0; channel < to_.channels(); channel += share_) find_quads(channel / share_);
    to_.allocate(static_cast<int64_t>(quads_.size()), share_ * 4);
    const int64_t* quad = quads_.data();
    for (int64_t channel = 0; channel < to_.channels(); channel += share_) {
      if (channel % to_.group_channels() == 0) to_.begin_group();
      const int64_t steps = row_quads_[static_cast<size_t>(channel / share_)];
      write_row(channel, quad, quad + steps);
      quad += steps;
    }
    to_.begin_group();
  }

 private:
  // Adds those of a block row in which any of its channels has a weight. They are kept, and not found twice: a caller who
  // changes the weights meanwhile must not make them more than there is memory for.
  void find_quads(int64_t unit) {
    const size_t before = quads_.size();
    for (int64_t run = 0; run < to_.shape().runs(); ++run) {
      left_.restart();
      left_.add(0, unit, run);
      for (int64_t w = left_.begin(); w < left_.end(); ++w)
        for (uint64_t first = firsts(std::exchange(*left_.word(w), 0)); first; first &= first - 1)
          quads_.push_back(run * run_quads_ + (w * 64 + std::countr_zero(first)) / to_.slots());
    }
    row_quads_.push_back(static_cast<int64_t>(quads_.size() - before));
  }

  // The first bit of each quad that has any.
  uint64_t firsts(uint64_t bits) const {
    if (to_.slots() == 1) return bits;
    bits |= bits >> 1;
    return to_.slots() == 2 ? bits & 0x5555555555555555 : (bits | bits >> 2) & 0x1111111111111111;
  }

  void write_row(int64_t channel, const int64_t* quad, const int64_t* end) {
    to_.begin_run();
    int64_t last = -1;
    for (const int64_t* q = quad; q < end; ++q) {
      const int64_t run = *q / run_quads_;
      for (int64_t c = 0; run != last && c < share_; ++c) rows_.read(c, channel + c, run);
      last = run;
      write_quad(to_.add_step(*q), *q % run_quads_ * to_.slots());
    }
    to_.end_run(end - quad);
  }

  void write_quad(std::byte* step, int64_t at) const {
    const int64_t count = std::min(to_.slots(), to_.shape().run_elements() - at);
    for (int64_t c = 0; c < share_; ++c)
      if (const uint8_t* row = rows_.row(c))
        std::memcpy(step + 4 * c, row + at * to_.element(), static_cast<size_t>(count * to_.element()));
  }

  Packer& to_;
  int64_t share_, run_quads_;
  NonZeros left_;
  RunRows rows_;
  std::vector<int64_t> quads_;      // of all block rows: run * run_quads + place in the run
  std::vector<int64_t> row_quads_;  // how many of them are each block row's
};

void pack(Packer& to) { BlockPacking(to).pack(); }

double work(const PackedWeights& w) {
  const WeightShape& s = w.shape();
  return static_cast<double>(w.steps() * form_info(w.form()).share) / kStripLanes +
         kInterleaveWork * static_cast<double>(s.runs() * run_bytes(s, w.type())) + kTransposeWork * static_cast<double>(s.n);
}

int64_t scratch_bytes(const PackedWeights& w) {
  return block_scratch_bytes(w.shape().runs(), run_bytes(w.shape(), w.type()), form_info(w.form()).share);
}

}  // namespace

extern const BodyRules kRules = {refuse, pack, work, scratch_bytes};

}  // namespace openwork::blocks
