"""Figures of a summary: matplotlib objects for print, plotly ones to look into. No global state."""

from analysis.figures.accuracy import energy_against_accuracy, pareto_front
from analysis.figures.energy import energy_by_treatment, energy_per_token, token_factor
from analysis.figures.interaction import interaction_profile
from analysis.figures.power import PowerTrace, power_trace
from analysis.figures.ranking import edp_ranking
from analysis.figures.style import PALETTE, save_figure
from analysis.figures.thermal import TemperatureSlope, temperature_slope, thermal_carry_over

__all__ = [
    "PALETTE",
    "PowerTrace",
    "TemperatureSlope",
    "edp_ranking",
    "energy_against_accuracy",
    "energy_by_treatment",
    "energy_per_token",
    "interaction_profile",
    "pareto_front",
    "power_trace",
    "save_figure",
    "temperature_slope",
    "thermal_carry_over",
    "token_factor",
]
