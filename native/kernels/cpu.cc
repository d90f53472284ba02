#include "kernels/cpu.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#endif
#ifdef __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace openwork::cpu {

#ifdef __x86_64__

namespace {

// Bits of CPUID leaf 7, subleaf 0, register EDX, and of the state that the operating system saves (XCR0).
constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
constexpr uint64_t kTileState = 3u << 17;
// Linux: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), Documentation/arch/x86/xstate.rst.
constexpr long kRequestPermission = 0x1023, kTileData = 18;

struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  Cpuid(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

uint64_t saved_state() {
  if (!(Cpuid(1, 0).ecx & 1u << 27)) return 0;  // OSXSAVE: without it the instruction is unknown
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Palette 1 as the kernels want it: eight tiles of 16 rows of 64 bytes. A virtual machine may have the flags and no palette.
bool has_palette() {
  if (Cpuid(0x1d, 0).eax < 1) return false;
  const Cpuid palette(0x1d, 1);
  return palette.eax >> 16 >= 1024 && (palette.ebx & 0xffff) >= 64 && palette.ebx >> 16 >= 8 && (palette.ecx & 0xffff) >= 16;
}

std::string refused_permission() {
#ifdef __linux__
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) return "";
  const std::string why = std::strerror(errno);
  if (errno == ENOSPC)
    return "permission from Linux for the tiles of AMX (" + why +
           "): a thread's alternate signal stack is too small for them; make it at least as large as getauxval(AT_MINSIGSTKSZ) says";
  return "permission from Linux for the tiles of AMX (" + why + "): they need Linux 5.16 or later";
#else
  return "operating system that openwork knows to ask for the tiles of AMX";
#endif
}

std::string find_amx() {
  if (const std::string lacks = lacks_vbmi2(); !lacks.empty()) return lacks;
  if (!has_avx512bf16()) return "AVX-512 BF16";
  if (~Cpuid(7, 0).edx & (kAmxTile | kAmxInt8 | kAmxBf16)) return "AMX for INT8 and BF16 (amx_tile, amx_int8, amx_bf16)";
  if ((saved_state() & kTileState) != kTileState) return "operating system that saves the tiles of AMX";
  if (!has_palette()) return "palette of AMX, though it has the flags; a virtual machine may hide it";
  return refused_permission();
}

}  // namespace

std::string lacks_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "" : "AVX2 with FMA";
}
std::string lacks_avxvnni() {
  const std::string lacks = lacks_avx2();
  return !lacks.empty() ? lacks : __builtin_cpu_supports("avxvnni") ? "" : "AVX-VNNI";
}
std::string lacks_avx512vnni() {
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
  return has ? "" : "AVX-512 F, BW, VL, DQ and VNNI";
}
std::string lacks_vbmi() {
  const std::string lacks = lacks_avx512vnni();
  return !lacks.empty() ? lacks : __builtin_cpu_supports("avx512vbmi") ? "" : "AVX-512 VBMI";
}
std::string lacks_vbmi2() {
  const std::string lacks = lacks_vbmi();
  return !lacks.empty() ? lacks : __builtin_cpu_supports("avx512vbmi2") ? "" : "AVX-512 VBMI2";
}
bool has_avx512bf16() { return __builtin_cpu_supports("avx512bf16"); }
std::string lacks_amx() {
  static const std::string lacks = find_amx();
  return lacks;
}

#endif
#ifdef __aarch64__
std::string lacks_dot_product() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP ? "" : "dot product of Armv8.2-A (asimddp)"; }
#endif

}  // namespace openwork::cpu
