"""Pictures of a run and of its model: every function returns a matplotlib Figure."""

from vaejax.plots.graphs import graph as graph
from vaejax.plots.history import curves as curves
from vaejax.plots.images import image_grid as image_grid
from vaejax.plots.images import prior_image as prior_image
from vaejax.plots.images import reconstructions as reconstructions
from vaejax.plots.images import samples as samples
from vaejax.plots.images import tile as tile
from vaejax.plots.latents import latent as latent
from vaejax.plots.latents import priors as priors
from vaejax.plots.look import BLUE as BLUE
from vaejax.plots.look import DOTS_PER_INCH as DOTS_PER_INCH
from vaejax.plots.look import GREY as GREY
from vaejax.plots.look import INK as INK
from vaejax.plots.look import ORANGE as ORANGE
from vaejax.plots.look import PALE as PALE
from vaejax.plots.look import TITLE as TITLE
from vaejax.plots.look import bare as bare
from vaejax.plots.look import figure_of as figure_of
from vaejax.plots.look import finish as finish
from vaejax.plots.look import legend as legend
from vaejax.plots.look import save as save
from vaejax.plots.look import shared_legend as shared_legend
from vaejax.plots.look import ticks_at as ticks_at
from vaejax.plots.look import without_ticks as without_ticks
