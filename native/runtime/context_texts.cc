// Runs of texts without their padding: each group's inputs are staged side by side, and its outputs go back to where they belong.
#include <algorithm>
#include <cstring>

#include "runtime/context.h"

namespace openwork {

bool Context::run_trimmed(const Plan& plan, const RunSizes& sizes, const Operands& operands) {
  if (!trimming_) return false;
  const auto& ids = program_->inputs();
  const auto at = static_cast<size_t>(std::find(ids.begin(), ids.end(), trimming_->mask) - ids.begin());
  const auto& dims = plan.sizes.dims[static_cast<size_t>(trimming_->mask)];
  const auto* mask = reinterpret_cast<const int64_t*>(operands.inputs[at]);
  const Texts texts = cut_texts(text_lengths(mask, dims[0], dims[1], trimming_->least), dims[1], pool_.threads());
  if (texts.groups.empty()) return false;
  run_texts(plan, texts, sizes, operands);
  return true;
}

std::vector<Context::Group> Context::group(const Texts& texts, const RunSizes& sizes) {
  std::vector<Group> groups;
  int64_t bytes = 0;
  for (const TextGroup& cut : texts.groups) {
    RunSizes own = sizes;
    own.free[trimming_->dimension] = cut.length;
    own.batch = cut.count;
    groups.push_back({(texts.apart ? slice_plans_ : plans_).get(own), {}, {}});
    groups.back().elements.assign(texts.order.begin() + cut.begin, texts.order.begin() + cut.begin + cut.count);
    for (const auto& ids : {program_->inputs(), program_->outputs()})
      for (const int v : ids) bytes += padded_bytes(cut.count * row_bytes(*groups.back().plan, v));
  }
  grow(staged_, bytes);
  std::byte* at = staged_.data();
  const auto take = [&](const Group& g, int v) {
    std::byte* const taken = at;
    at += padded_bytes(static_cast<int64_t>(g.elements.size()) * row_bytes(*g.plan, v));
    return taken;
  };
  for (Group& g : groups) {
    for (const int v : program_->inputs()) g.operands.inputs.push_back(take(g, v));
    for (const int v : program_->outputs()) g.operands.outputs.push_back(take(g, v));
  }
  return groups;
}

// A text's row of an input is as much shorter as its length is: its beginning.
void Context::bring(const Plan& plan, const Group& g, const Operands& operands) const {
  for (size_t i = 0; i < operands.inputs.size(); ++i) {
    const int v = program_->inputs()[i];
    const int64_t row = row_bytes(*g.plan, v), given = row_bytes(plan, v);
    auto* to = const_cast<std::byte*>(g.operands.inputs[i]);
    for (const int64_t element : g.elements) {
      std::memcpy(to, operands.inputs[i] + element * given, static_cast<size_t>(row));
      to += row;
    }
  }
}

void Context::give_back(const Group& g, const Operands& operands) const {
  for (size_t o = 0; o < operands.outputs.size(); ++o) {
    const int64_t row = row_bytes(*g.plan, program_->outputs()[o]);
    const std::byte* made = g.operands.outputs[o];
    for (const int64_t element : g.elements) {
      std::memcpy(operands.outputs[o] + element * row, made, static_cast<size_t>(row));
      made += row;
    }
  }
}

void Context::run_texts(const Plan& plan, const Texts& texts, const RunSizes& sizes, const Operands& operands) {
  const std::vector<Group> groups = group(texts, sizes);
  for (const Group& g : groups) bring(plan, g, operands);
  if (texts.apart) {
    for (auto& arena : slice_arenas_)
      for (const Group& g : groups) grow(arena, g.plan->arena_bytes);
    pool_.run(static_cast<int64_t>(groups.size()), [&](int64_t i, int thread) {
      const Group& g = groups[static_cast<size_t>(i)];
      run_slice(*g.plan, g.operands, thread);
    });
  } else {
    run_whole(*groups[0].plan, groups[0].operands);
  }
  for (const Group& g : groups) give_back(g, operands);
}

}  // namespace openwork
