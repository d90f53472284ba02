// The forms with rows in the lanes, which hold every weight and leave out the quads that are zero for a whole block row.
#include <algorithm>
#include <bit>
#include <cstring>

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
        all_(to.reader(), to.channels() / share_, share_), rows_(to.reader(), share_) {}

  void pack() {
    int64_t steps = 0;
    for (int64_t unit = 0; unit < all_.units(); ++unit) steps += each_quad(unit, [](int64_t, int64_t) {});
    to_.allocate(steps, share_ * 4);
    for (int64_t unit = 0; unit < all_.units(); ++unit) {
      if (unit * share_ % to_.group_channels() == 0) to_.begin_group();
      write_row(unit);
    }
    to_.begin_group();
  }

 private:
  // Calls f(run, quad of the run) for those in which any channel of a block row has a weight; how many there are.
  template <class F>
  int64_t each_quad(int64_t unit, const F& f) const {
    int64_t count = 0;
    for (int64_t run = 0; run < all_.runs(); ++run)
      for (int64_t w = 0; w < all_.words(); ++w)
        for (uint64_t left = firsts(all_.run(unit, run)[w]); left; left &= left - 1, ++count)
          f(run, (w * 64 + std::countr_zero(left)) / to_.slots());
    return count;
  }

  // The first bit of each quad that has any.
  uint64_t firsts(uint64_t bits) const {
    if (to_.slots() == 1) return bits;
    bits |= bits >> 1;
    return to_.slots() == 2 ? bits & 0x5555555555555555 : (bits | bits >> 2) & 0x1111111111111111;
  }

  void write_row(int64_t unit) {
    to_.begin_run();
    int64_t last = -1;
    const int64_t steps = each_quad(unit, [&](int64_t run, int64_t quad) {
      for (int64_t c = 0; run != last && c < share_; ++c) rows_.read(c, unit * share_ + c, run);
      last = run;
      write_quad(to_.add_step(run * run_quads_ + quad), quad * to_.slots());
    });
    to_.end_run(steps);
  }

  void write_quad(std::byte* step, int64_t at) const {
    const int64_t count = std::min(to_.slots(), to_.shape().run_elements() - at);
    for (int64_t c = 0; c < share_; ++c)
      if (const uint8_t* row = rows_.row(c)) std::memcpy(step + 4 * c, row + at * to_.element(), static_cast<size_t>(count * to_.element()));
  }

  Packer& to_;
  int64_t share_, run_quads_;
  NonZeros all_;
  RunRows rows_;
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
