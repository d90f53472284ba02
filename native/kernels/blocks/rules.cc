// The forms with rows in the lanes, which hold every weight and leave out the quads that are zero for a whole block row.
#include "kernels/blocks/cut.h"
#include "kernels/body.h"
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
      : to_(to), share_(to.info().share), run_quads_((to.shape().run_elements() + to.slots() - 1) / to.slots()) {}

  void pack() {
    std::vector<std::vector<int64_t>> rows;
    int64_t steps = 0;
    for (int64_t channel = 0; channel < to_.channels(); channel += share_) {
      rows.push_back(quads(channel));
      steps += static_cast<int64_t>(rows.back().size());
    }
    to_.allocate(steps, share_ * 4);
    for (int64_t channel = 0; channel < to_.channels(); channel += share_) {
      if (channel % to_.group_channels() == 0) to_.begin_group();
      write_row(channel, rows[static_cast<size_t>(channel / share_)]);
    }
    to_.begin_group();
  }

 private:
  // The quads of all runs in which any channel of a block row has a weight: run * run_quads + place in the run.
  std::vector<int64_t> quads(int64_t channel) const {
    std::vector<int64_t> found;
    for (int64_t run = 0; run < to_.shape().runs(); ++run)
      for (const int32_t at : to_.reader().positions(channel, share_, run)) {
        const int64_t quad = run * run_quads_ + at / to_.slots();
        if (found.empty() || found.back() != quad) found.push_back(quad);
      }
    return found;
  }

  void write_row(int64_t channel, const std::vector<int64_t>& row) {
    to_.begin_run();
    for (const int64_t quad : row) {
      std::byte* step = to_.add_step(quad);
      for (int64_t c = 0; c < share_; ++c)
        for (int64_t i = 0; i < to_.slots(); ++i)
          to_.put(step + 4 * c + i * to_.element(),
                  to_.reader().source(channel + c, quad / run_quads_, quad % run_quads_ * to_.slots() + i));
    }
    to_.end_run(static_cast<int64_t>(row.size()));
  }

  Packer& to_;
  int64_t share_, run_quads_;
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
