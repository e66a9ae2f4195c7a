// The call and room pages: preview, meeting, and what comes after. Joins the modules; each has one role.

import { Signaling } from '../lib/signaling.js';
import { copyOnClick, element, parameter, serverInfo, setText, showDiagnosis, hideFailure } from '../page.js';
import { autostart, invitation, isDemo, kind, roomFromAddress, signalingAddress, token } from './address.js';
import { keepArranged } from './arrange.js';
import { Chat } from './chat.js';
import { Lobby } from './lobby.js';
import { LocalMedia } from './local.js';
import { Meeting, mediaState } from './meeting.js';
import { recall, remember, rememberSeat, wasReloadedIn } from './memory.js';
import { Sound } from './sound.js';
import { connectSwitches } from './switches.js';
import { deviceTrouble, insecure, mediaTrouble, signalingLost, signalingTrouble } from './trouble.js';
import { stayAwake } from './wake.js';

/** @typedef {'lobby' | 'meeting' | 'left'} View */

const CAMERA_SIZE = { call: { width: 1280, height: 720 }, room: { width: 640, height: 360 } };
const WORDS = {
  call: { title: 'Call', about: 'For two. Whoever opens the link is in it with you.' },
  room: { title: 'Room', about: 'For several people. Whoever opens the link is in it with you.' },
};

const MAX_NAME_BYTES = 64;

const room = roomFromAddress();
const local = new LocalMedia(CAMERA_SIZE[kind]);
const sound = new Sound();
const lobby = new Lobby(local, sound);
const tiles = element('tiles');
const arrange = keepArranged(tiles);
const display = element('display', HTMLInputElement);
/** @type {Signaling | null} */
let signaling = null;
/** @type {Meeting | null} */
let meeting = null;
/** Counts joins and leaves, so that a join that is answered late knows that nobody wants it any more. */
let turn = 0;
const chat = new Chat(element('chat'), async (text) => signaling?.chat(text));

prepare();

function prepare() {
  document.body.dataset.kind = kind;
  document.title = `${room} · ${WORDS[kind].title} · Freshet`;
  setText(element('title'), `${WORDS[kind].title}: ${room}`);
  setText(element('about'), WORDS[kind].about);
  setText(element('room-name'), room);
  setText(element('invite-text'), 'Nobody else is here yet. Send them the link.');
  element('link', HTMLInputElement).value = invitation(room);
  for (const id of ['copy-link', 'copy-link-top', 'copy-link-invite']) copyOnClick(element(id), () => invitation(room));
  display.value = parameter('display') || recall().name;
  connectSwitches(local);
  local.addEventListener('trouble', () => showDevice(local.lastTrouble));
  element('join-form', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    void join();
  });
  element('retry').addEventListener('click', () => void join());
  element('dismiss').addEventListener('click', hideFailure);
  element('leave').addEventListener('click', leave);
  element('rejoin').addEventListener('click', () => void enterLobby());
  connectChat();
  connectDevices();
  connectSound();
  void enterLobby();
  if (autostart || wasReloadedIn(room)) void join();
}

async function enterLobby() {
  show('lobby', 'Ready');
  element('join-form').insertBefore(element('device-fields'), element('join').parentElement);
  await lobby.open();
  if (!navigator.mediaDevices) showDiagnosis(insecure((await serverInfo()).https_port), true);
}

async function join() {
  const mine = ++turn;
  meeting?.leave();
  meeting = null;
  void signaling?.leave();
  hideFailure();
  display.value = fitting(display.value) || `Guest ${Math.floor(1000 + Math.random() * 9000)}`;
  remember({ name: display.value });
  status('connecting', 'Joining…');
  performance.mark('call-join');
  // SRS's pages play by name, so on its addresses the stream is called as they expect.
  const wish = new Signaling({
    url: signalingAddress().href,
    room,
    display: display.value,
    kind,
    stream: isDemo ? undefined : 'assign',
    token,
    state: mediaState(local),
    capabilities: ['chat'],
  });
  signaling = wish;
  wish.addEventListener('statechange', () => {
    if (mine === turn) showSignaling(wish);
  });
  try {
    await wish.join();
    if (mine === turn) enterMeeting(wish);
  } catch {
    // Refusals were shown as a state.
  }
}

/** @param {Signaling} wish */
function showSignaling({ state, error }) {
  switch (state) {
    case 'joining':
      if (!error) return;
      status('waiting', meeting ? 'Reconnecting…' : 'Joining…');
      showDiagnosis(meeting ? signalingLost() : signalingTrouble(error, room, kind), true);
      break;
    case 'joined':
      hidePassing();
      showPeople();
      break;
    case 'refused':
    case 'ended':
      if (meeting) leave();
      else show('lobby', 'Not joined', 'failed');
      if (error) showDiagnosis(signalingTrouble(error, room, kind), false);
      break;
  }
}

/** @param {Signaling} joined */
function enterMeeting(joined) {
  lobby.close();
  rememberSeat(room);
  show('meeting', 'Connecting…', 'connecting');
  element('devices-slot').append(element('device-fields'));
  joined.addEventListener('chat', (event) => {
    const { peer, data } = detail(event);
    chat.add(peer.display, String(data));
    if (!chat.isOpen) announce(`${peer.display} writes: ${data}`);
  });
  if (isDemo) joined.addEventListener('control', (event) => obeySrs(detail(event)));
  meeting = new Meeting(joined, display.value, local, sound, kind);
  meeting.addEventListener('people', showPeople);
  meeting.addEventListener('arrived', (event) => announce(`${detail(event)} is here`));
  meeting.addEventListener('departed', (event) => announce(`${detail(event)} has left`));
  meeting.addEventListener('picture', measureFirstPicture);
  meeting.addEventListener('trouble', (event) => showMedia(detail(event)));
  meeting.addEventListener('recovered', hidePassing);
  stayAwake(true);
  showPeople();
  element('toggle-microphone').focus();
}

/** The two buttons that SRS's page for two has. @param {import('../lib/signaling.js').Notice} notice */
function obeySrs({ param, peer, data }) {
  if (param === 'refresh') location.reload();
  if (param === 'alert') chat.add(peer.display, String(data));
}

function leave() {
  turn++;
  meeting?.leave();
  meeting = null;
  signaling = null;
  rememberSeat('');
  stayAwake(false);
  void local.close();
  chat.close();
  chat.clear();
  hideFailure();
  show('left', 'Not in the call');
  element('left-title').focus();
}

function showPeople() {
  if (!meeting) return;
  const others = [...meeting.people.values()];
  const everybody = [meeting.tile, ...others.map(({ tile }) => tile)].map((tile) => tile.element);
  const presented = everybody.filter((tile) => tile.classList.contains('screen')).at(-1);
  for (const tile of everybody) tile.classList.toggle('presented', tile === presented);
  tiles.classList.toggle('presenting', presented !== undefined);
  tiles.classList.toggle('pair', kind === 'call' && others.length === 1 && !presented);
  // Moving an element stops its video for a moment, so only what changed is touched.
  for (const tile of [...tiles.children]) if (!everybody.includes(/** @type {HTMLElement} */ (tile))) tile.remove();
  for (const tile of everybody) if (tile.parentElement !== tiles) tiles.append(tile);
  arrange();
  element('invite').hidden = others.length > 0;
  if (signaling?.state === 'joined') status('live', others.length === 0 ? 'Nobody else yet' : kind === 'call' ? 'In the call' : `${others.length + 1} people`);
}

/** The protocol bounds names in bytes. @param {string} name */
function fitting(name) {
  let fits = name.trim();
  while (new TextEncoder().encode(fits).length > MAX_NAME_BYTES) fits = [...fits].slice(0, -1).join('');
  return fits;
}

/** From the click on Join to somebody's first frame. */
function measureFirstPicture() {
  if (performance.getEntriesByName('call-first-picture').length === 0) performance.measure('call-first-picture', 'call-join');
}

function connectChat() {
  const button = element('toggle-chat');
  button.addEventListener('click', () => (chat.isOpen ? chat.close() : chat.open()));
  chat.addEventListener('toggle', () => {
    button.setAttribute('aria-expanded', String(chat.isOpen));
    if (!chat.isOpen && meeting) button.focus();
  });
  chat.addEventListener('unread', () => {
    const badge = element('unread');
    badge.hidden = chat.unread === 0;
    setText(badge, chat.unread ? `${chat.unread} new` : '');
  });
}

function connectDevices() {
  const dialog = element('devices', HTMLDialogElement);
  element('open-devices').addEventListener('click', () => {
    void lobby.listDevices();
    dialog.showModal();
  });
}

function connectSound() {
  const box = element('hear');
  sound.addEventListener('blocked', () => (box.hidden = false));
  sound.addEventListener('unblocked', () => (box.hidden = true));
  element('hear-button').addEventListener('click', () => void sound.unblock());
}

/** @param {import('./local.js').Trouble | null} trouble */
function showDevice(trouble) {
  const diagnosis = trouble && deviceTrouble(trouble);
  // It never ends the meeting: the page goes on, which is what `passing` says.
  if (diagnosis) showDiagnosis(diagnosis, true);
}

/** @param {import('./meeting.js').MediaTrouble} trouble */
function showMedia({ whose, error, isPassing }) {
  showDiagnosis(mediaTrouble(error, whose), isPassing);
}

/** What passes by itself is taken away again; what the person has to do something about stays. */
function hidePassing() {
  if (element('failure').classList.contains('passing')) hideFailure();
}

/** @param {View} view @param {string} text @param {string} [state] */
function show(view, text, state = 'idle') {
  document.body.dataset.view = view;
  for (const id of ['lobby', 'meeting', 'left']) element(id).hidden = id !== view;
  status(state, text);
}

/** @param {string} state @param {string} text */
function status(state, text) {
  document.body.dataset.state = state;
  setText(element('status'), text);
}

/** For those who do not see tiles come and go. @param {string} text */
function announce(text) {
  setText(element('announcer'), text);
}

/** @param {Event} event */
function detail(event) {
  return event instanceof CustomEvent ? event.detail : undefined;
}
