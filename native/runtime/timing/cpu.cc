#include "runtime/timing/cpu.h"

#ifdef __x86_64__
#include <cpuid.h>

#include <cstring>
#endif
#ifdef __aarch64__
#include <fstream>
#endif

namespace openwork {

std::string cpu_name() {
#ifdef __x86_64__
  constexpr unsigned first = 0x80000002, last = 0x80000004;
  if (__get_cpuid_max(0x80000000, nullptr) >= last) {
    char text[49] = {};
    for (unsigned leaf = first; leaf <= last; ++leaf) {
      unsigned part[4];
      __get_cpuid(leaf, &part[0], &part[1], &part[2], &part[3]);
      std::memcpy(text + 16 * (leaf - first), part, sizeof part);
    }
    const std::string name(text);
    const auto begin = name.find_first_not_of(' ');
    if (begin != std::string::npos) return name.substr(begin, name.find_last_not_of(' ') - begin + 1);
  }
#endif
#ifdef __aarch64__
  // The core's implementer, part and revision: Arm cores carry no name.
  std::ifstream file("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
  if (std::string number; file >> number) return "Arm core " + number;
#endif
  return "unknown";
}

std::string kernel_version() { return OPENWORK_KERNEL_VERSION; }

}  // namespace openwork
