"""Mutation check of the diffusion core: plant a fault, run the test that must catch it.

    python tests/mutations.py [--jobs N] [WORD ...]

Every fault is a change of source text in a temporary copy of `ldm/diffusion`. A row is printed for
each: the fault, the file, the test, and whether the test failed as it must. The last row says how
many were caught; the exit status is 1 if any was missed, or if a test fails without its fault.
WORDs keep the faults whose description holds one of them.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ("oracles.py", "solver_cases.py", "wrong_nets.py")


@dataclass(frozen=True)
class Fault:
    """`old` in ldm/diffusion/`file` becomes `new`; tests/test_diffusion_`test` must fail."""

    what: str
    file: str
    old: str
    new: str
    test: str


FAULTS = [
    # processes
    Fault("beta-tilde off by one step", "process.py",
          "sigma = self.alpha_sigma(s.double())[1]\n", "sigma = self.alpha_sigma(t.double())[1]\n",
          "process.py::test_posterior_and_beta_of_the_chain_are_ddpms"),
    Fault("alpha-bar taken for alpha", "process.py",
          "return log_alpha.exp(), (-torch", "return (2 * log_alpha).exp(), (-torch",
          "process.py::test_drift_and_diffusion_are_those_of_the_published_sdes"),
    Fault("g^2 halved", "process.py",
          "return -self.alpha_sigma(t.double())[1].square()",
          "return -0.5 * self.alpha_sigma(t.double())[1].square()",
          "process.py::test_drift_and_diffusion_are_those_of_the_published_sdes"),
    Fault("log-SNR without its factor 2", "process.py",
          "return 2 * (alpha.log() - sigma.log())", "return alpha.log() - sigma.log()",
          "process.py::test_posterior_and_beta_of_the_chain_are_ddpms"),
    Fault("cosine schedule without its offset", "process.py",
          "u = (t + self.s) / (1 + self.s)", "u = t / 1",
          "process.py::test_cosine_is_the_published_curve"),
    Fault("chain read one step late", "chain.py",
          "place = t * len(table) - 1", "place = t * len(table) - 2",
          "process.py::test_posterior_and_beta_of_the_chain_are_ddpms"),
    Fault("scaled-linear chain made linear", "chain.py",
          "ends = math.sqrt(self.beta_start), math.sqrt(self.beta_end)",
          "ends = self.beta_start**0.6, self.beta_end**0.6",
          "process.py::test_published_chains_are_the_library_of_record"),
    Fault("zero terminal SNR not rescaled, only shifted", "chain.py",
          "- last) * first / (first - last)", "- last)",
          "process.py::test_zero_terminal_snr_ends_in_noise_and_keeps_its_start"),
    # predictions and the denoiser
    Fault("sign of v", "prediction.py", "return -sigma, alpha", "return sigma, -alpha",
          "prediction.py::test_v_and_previous_mean_are_the_published_formulas"),
    Fault("EDM's c_out by the variance", "prediction.py",
          "c_out = sigma * self.sigma_data / variance.sqrt()",
          "c_out = sigma * self.sigma_data / variance",
          "prediction.py::test_karras_is_edms_preconditioning"),
    Fault("score not divided by sigma", "prediction.py",
          "torch.zeros_like(t), -1 / process.alpha_sigma(t)[1]",
          "torch.zeros_like(t), -1 * process.alpha_sigma(t)[1]",
          "prediction.py::test_v_and_previous_mean_are_the_published_formulas"),
    Fault("eps accepted where alpha is 0", "prediction.py",
          "if alpha.item() < MIN_ALPHA", "if alpha.item() < -1",
          "prediction.py::test_a_prediction_refuses_where_it_is_undefined"),
    Fault("eps refused on the published cosine chain", "prediction.py",
          "MIN_ALPHA = 1e-5", "MIN_ALPHA = 2e-3",
          "prediction.py::test_the_published_cosine_chain_takes_eps"),
    Fault("time fed to the network rescaled twice", "denoiser.py",
          "return self.scale * t + self.shift", "return self.scale * self.scale * t + self.shift",
          "prediction.py::test_what_the_network_sees"),
    Fault("network input not scaled", "denoiser.py",
          "(scale * x).to(x.dtype)", "x", "prediction.py::test_what_the_network_sees"),
    # training
    Fault("hybrid loss: lambda of the sum on one step", "variational.py",
          "bits = self.num_steps * torch.where", "bits = torch.where",
          "variational.py::test_the_hybrid_weighs_a_sampled_step_by_t_over_1000"),
    Fault("hybrid loss: mean not stopped", "variational.py",
          "if self.stop_mean else", "if False else",
          "variational.py::test_the_stopped_mean_learns_from_the_simple_loss_alone"),
    Fault("VDM's diffusion term without its half", "variational.py",
          "/ (2 * math.log(2))", "/ math.log(2)",
          "variational.py::test_vdms_loss_does_not_depend_on_the_interior_of_the_schedule"),
    Fault("weight not carried to the space of the loss", "weighting.py",
          "* (alpha / prediction.determinant(process, t)).square()", "",
          "training.py::test_a_weighting_means_the_same_in_every_space"),
    Fault("min-SNR made max-SNR", "weighting.py", ".clamp(max=1.0)", ".clamp(min=1.0)",
          "training.py::test_weightings_are_the_published_ones"),
    Fault("importance weight not normalised", "times.py",
          "1 / (len(p) * p[index])", "1 / p[index]",
          "memory.py::test_loss_second_moment_draws_by_root_mean_square_without_bias"),
    Fault("ring of losses written at one place", "times.py",
          "slot = (self.counts[index] + before)", "slot = (self.counts[index] + 0 * before)",
          "memory.py::test_a_batch_is_remembered_as_one_loss_after_another"),
    Fault("each process keeps its own losses", "times.py",
          "heard = gather_rows(torch.stack([t.double(), loss.double()], dim=1))",
          "heard = torch.stack([t.double(), loss.double()], dim=1)",
          "memory.py::test_two_processes_share_one_history"),
    Fault("evaluation is listened to", "times.py",
          "if not self.training:", "if False:",
          "memory.py::test_it_does_not_hear_evaluation_nor_what_is_not_finite"),
    Fault("importance weight dropped", "objective.py",
          '"loss": weight.to(terms["loss"].dtype) * terms["loss"]', '"loss": terms["loss"]',
          "memory.py::test_importance_weights_multiply_the_loss_and_it_is_heard"),
    Fault("sliced score matching without its half", "objective.py",
          "score.square() / 2 + v * slope", "score.square() + v * slope",
          "training.py::test_sliced_score_matching_finds_the_true_score"),
    Fault("8-bit decoder with bins that do not tile", "bounds.py",
          "half, std = 1 / (self.levels - 1)", "half, std = 1 / self.levels",
          "variational.py::test_decoders_are_probabilities"),
    # likelihood
    Fault("sign of the divergence", "likelihood.py",
          "return y[:, -1] + _log_normal", "return -y[:, -1] + _log_normal",
          "likelihood.py::test_flow_likelihood_to_a_thousandth_of_a_nat[gauss-vp]"),
    Fault("prior term without its half", "bounds.py",
          "(alpha * x0 / sigma).square() / 2)", "(alpha * x0 / sigma).square())",
          "likelihood.py::test_the_discrete_bound_with_the_small_variance_is_the_brute_sum"),
    Fault("KL without the variance ratio", "bounds.py",
          "+ torch.exp(log_q - log_p) - 1 + gap", "+ gap",
          "likelihood.py::test_the_discrete_bound_of_a_gaussian_is_exact"),
    Fault("progress counts one step twice", "progressive.py",
          "paid.append(paid[-1] + sum_flat(kl))", "paid.append(paid[-1] + 2 * sum_flat(kl))",
          "likelihood.py::test_progressive_coding_of_a_gaussian_is_exact"),
    Fault("interior's loss not squared", "variational.py",
          "square = diffusion_bits(drawn).square()", "square = diffusion_bits(drawn)",
          "variational.py::test_the_interiors_gradient_is_twice_each_loss_times_its_own"),
    # kernels and solvers
    Fault("DDIM's direction ignores eta", "step.py",
          "(eta * tau).square()", "(0 * tau).square()",
          "solvers.py::test_ddim_formula_at_any_eta"),
    Fault("flow velocity with the sign of sigma' turned", "step.py",
          "+ sigma * denoised.eps", "- sigma * denoised.eps",
          "solvers.py::test_ddim_is_eulers_method_for_flow_and_for_edm"),
    Fault("last step adds noise", "solvers.py",
          "return denoise(x, t).x0\n", "return denoise(x, t).x0 + 0.1 * fresh(noise, x)\n",
          "solvers.py::test_the_last_evaluation_adds_no_noise"),
    Fault("Heun without its average", "solvers.py", "(start + end) / 2", "end",
          "orders.py::test_order_of_convergence[heun-vp]"),
    Fault("2M extrapolates twice as far", "solvers.py",
          "h / (2 * h_before)", "h / h_before",
          "orders.py::test_order_of_convergence[2m-vp]"),
    Fault("2M's ratio of steps inverted", "solvers.py",
          "h / (2 * h_before)", "h_before / (2 * h)",
          "peers.py::test_trajectories_are_those_of_diffusers[2m]"),
    Fault("2S extrapolates half as far", "multistep.py",
          "/ (2 * self.middle)", "/ (4 * self.middle)",
          "orders.py::test_order_of_convergence[2s-vp]"),
    Fault("UniPC's h with its sign turned", "multistep.py",
          "weights = _weights(ratios, -h) / ratios", "weights = _weights(ratios, h) / ratios",
          "orders.py::test_order_of_convergence[unipc2-vp]"),
    Fault("UniPC's lone weight 1 for 1/2", "multistep.py",
          "torch.full_like(ratios, 0.5)", "torch.full_like(ratios, 1.0)",
          "orders.py::test_order_of_convergence[unipc1-vp]"),
    Fault("a Dormand-Prince coefficient", "adaptive.py", "(44 / 45,", "(45 / 45,",
          "orders.py::test_adaptive_rk45_keeps_its_tolerance[edm]"),
    Fault("adaptive error shared by the batch", "adaptive.py",
          ".square().mean(1).sqrt()", ".square().mean().sqrt().expand(len(y))",
          "solvers.py::test_picture_i_of_seven_is_picture_i_alone[rk45]"),
    Fault("one generator for all pictures", "noise.py",
          "dtype=dtype) for g in self._generators]",
          "dtype=dtype) for g in self._generators[:1] * len(self)]",
          "solvers.py::test_picture_i_of_seven_is_picture_i_alone[small]"),
    Fault("learned range turned round", "variance.py",
          "nu * large + (1 - nu) * small", "nu * small + (1 - nu) * large",
          "solvers.py::test_learned_range_lies_between_the_two"),
    Fault("wrong sign of the drift", "stochastic.py",
          "(1 + per_item((s - t) * process.drift(t), x))",
          "(1 - per_item((s - t) * process.drift(t), x))",
          "orders.py::test_moments_of_the_stochastic_solvers[maruyama-cosine]"),
    Fault("reverse diffusion: beta twice", "stochastic.py",
          "per_item(beta, x) * score", "per_item(2 * beta, x) * score",
          "orders.py::test_moments_of_the_stochastic_solvers[reverse-ve]"),
    Fault("factor 2 in Langevin's step", "stochastic.py",
          "(2 * step).sqrt() * z", "step.sqrt() * z",
          "orders.py::test_langevin_is_stationary_at_the_variance_of_its_convention"),
    Fault("slerp by the chord", "slerp.py",
          "second = torch.where(straight, f, (f * safe).sin() / safe.sin())",
          "second = torch.where(straight, f, f)",
          "solvers.py::test_slerp_is_an_arc_that_keeps_the_length_of_noise"),
    Fault("Langevin's ladder by sigma for sigma^2", "stochastic.py",
          "(process.alpha_sigma(t)[1] / last).square()", "(process.alpha_sigma(t)[1] / last)",
          "orders.py::test_annealed_langevin_restores_the_weights_of_a_mixture"),
    Fault("signal-to-noise step not squared", "stochastic.py",
          "2 * (self.snr * ratio).square()", "2 * (self.snr * ratio)",
          "orders.py::test_snr_step_is_the_published_length"),
    Fault("churn adds the posterior's noise", "step.py",
          "process.conditional_variance(t, s)", "process.posterior_std(t, s).square()",
          "peers.py::test_karras_grid_and_heun_are_edms_algorithms"),
    Fault("Karras grid with rho inverted", "grids.py",
          "* _ramp(n)) ** self.rho", "* _ramp(n)) ** (self.rho + 1)",
          "peers.py::test_karras_grid_and_heun_are_edms_algorithms"),
    # guidance and inverse problems
    Fault("guidance on variance channels", "guidance.py",
          "return Denoised(x0, eps, strong.aux)",
          "aux = None if strong.aux is None else weak.aux + scale * (strong.aux - weak.aux)\n"
          "    return Denoised(x0, eps, aux)",
          "guidance.py::test_cfg_leaves_the_variance_channels_alone"),
    Fault("condition and null exchanged", "guidance.py",
          "strong, weak = split(", "weak, strong = split(",
          "guidance.py::test_cfg_is_the_score_of_the_sharpened_posterior"),
    Fault("guidance scale counted from 0", "guidance.py",
          "torch.where(acts, scale, 1.0)", "torch.where(acts, scale + 1.0, 1.0)",
          "guidance.py::test_cfg_is_the_score_of_the_sharpened_posterior"),
    Fault("classifier's gradient not divided by alpha", "guidance.py",
          "sigma.square() / alpha * gradient", "sigma.square() * gradient",
          "guidance.py::test_a_classifier_turns_the_mixture_into_its_component"),
    Fault("ADM's shift by the deviation", "guidance.py",
          "self.scale * log_variance.exp()", "self.scale * (log_variance / 2).exp()",
          "guidance.py::test_adm_shifts_the_mean_by_its_variance"),
    Fault("eps kept when x0 is clipped", "guidance.py",
          "return given_x0(process, t, x, found.x0.clamp(low, high), found.aux)",
          "return found._replace(x0=found.x0.clamp(low, high))",
          "guidance.py::test_thresholds_hold_x0_and_keep_the_pair_consistent"),
    Fault("mask turned round", "inverse.py",
          "torch.where(self.mask, known, x)", "torch.where(self.mask, x, known)",
          "inverse.py::test_what_lies_in_the_hole_is_never_read"),
    Fault("RePaint jumps one level short", "inverse.py",
          "range(level + self.length, level - 1, -1)",
          "range(level + max(self.length - 1, 1), level - 1, -1)",
          "inverse.py::test_the_walk_is_the_published_schedule_of_jumps"),
    Fault("RePaint climbs by the wrong noise", "inverse.py",
          "renoise(process, x, t, s, fresh(noise, x))",
          "x + 0.1 * fresh(noise, x)",
          "inverse.py::test_a_jump_is_a_draw_of_the_forward_process_and_forgets_the_path"),
    Fault("grey by the sum of the colours", "inverse.py",
          "(known - x).mean(dim=1", "(known - x).sum(dim=1",
          "inverse.py::test_projections_are_orthogonal"),
]


def run(tests: list[str], fault: Fault | None) -> bool:
    """Whether tests of one file pass in a copy of the package, with the fault planted."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "ldm/diffusion", root / "ldm/diffusion")
        (root / "ldm/__init__.py").write_text("")
        (root / "tests").mkdir()
        for name in (*HELPERS, f"test_diffusion_{tests[0].split('::')[0]}"):
            shutil.copy(ROOT / "tests" / name, root / "tests")
        if fault:
            path = root / "ldm/diffusion" / fault.file
            text = path.read_text()
            if fault.old not in text:
                raise SystemExit(f"{fault.what}: {fault.old!r} is no longer in {fault.file}")
            path.write_text(text.replace(fault.old, fault.new))
        child = multiprocessing.get_context("fork").Process(target=_pytest, args=(root, tests))
        child.start()
        child.join()
        if child.exitcode not in (0, 1):
            raise SystemExit(f"{tests}: pytest ended with {child.exitcode}; are the tests there?")
        return child.exitcode == 0


def _pytest(root: Path, tests: list[str]) -> None:
    """In a child, whose parent has imported torch and pytest and none of the package."""
    os.chdir(root)
    sys.path[:] = [str(root)] + [p for p in sys.path if Path(p or ".").resolve() != ROOT]
    names = [str(root / "tests" / f"test_diffusion_{test}") for test in tests]
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        options = ["-q", "-x", "-p", "no:cacheprovider", "--rootdir", str(root), "-c", "/dev/null"]
        code = pytest.main([*options, *names])
    os._exit(int(code))


def check(fault: Fault) -> bool:
    """Run one fault's test with the fault, print its row, and say whether it was caught."""
    caught = not run([fault.test], fault)
    verdict = "yes" if caught else "MISSED"
    print(f"{fault.what:52} {fault.file:15} {verdict:7} {fault.test}", flush=True)
    return caught


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.testing.assert_close(torch.ones(1), torch.ones(1))  # loaded once, for every child
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    chosen = [f for f in FAULTS if not args.words or any(w in f.what for w in args.words)]
    files: dict[str, list[str]] = {}
    for fault in chosen:
        named = files.setdefault(fault.test.split("::")[0], [])
        named += [] if fault.test in named else [fault.test]
    with ThreadPoolExecutor(args.jobs) as pool:
        print(f"{'fault':52} {'file':15} {'caught':7} test", flush=True)
        caught = list(pool.map(check, chosen))
        sound = list(pool.map(lambda tests: run(tests, None), files.values()))
    print(f"{sum(caught)} of {len(chosen)} faults caught")
    for file, passes in zip(files, sound, strict=True):
        print(f"without faults, test_diffusion_{file}: {'passes' if passes else 'FAILS'}")
    return 0 if all(caught) and all(sound) else 1


if __name__ == "__main__":
    raise SystemExit(main())
