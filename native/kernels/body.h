// What each body says about weights: which a form of it holds, how it packs them, what their product is expected to take.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/packing.h"

namespace openwork {

class Packer;

struct BodyRules {
  // Why the form does not hold weights of this shape on an instruction set that has it; empty where it does.
  std::string (*refuse)(const WeightShape&, Type, Form, const KernelTable&);
  void (*pack)(Packer&);
  // Dot products of a strip that each row is expected to take.
  double (*work)(const PackedWeights&);
  // Of each thread's memory while the kernel runs.
  int64_t (*scratch_bytes)(const PackedWeights&);
};

#define OPENWORK_BODY(body, rows, block) \
  namespace body {                 \
  extern const BodyRules kRules;   \
  }
#include "kernels/bodies.inc"
#undef OPENWORK_BODY

const BodyRules& body_rules(Body body);

}  // namespace openwork
